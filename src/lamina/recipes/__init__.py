"""Recipes: functions that return one frozen, typed value with everything a run depends on."""

from lamina.recipes.named import demo, methods, recipe, recipes, small
from lamina.recipes.recipe import Recipe, Size

__all__ = ["Recipe", "Size", "demo", "methods", "recipe", "recipes", "small"]
