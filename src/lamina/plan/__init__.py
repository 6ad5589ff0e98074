"""What a run will be, before it is: settings that fit the data, work, memory and time."""
