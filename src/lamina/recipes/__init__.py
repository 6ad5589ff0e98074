"""Recipes: functions that return one frozen, typed value with everything a run depends on."""
