"""Recipes: functions that return one frozen, typed value with everything a run depends on."""

from lamina.recipes.named import demo, methods, recipe, recipes, small
from lamina.recipes.protocols import protocols
from lamina.recipes.recipe import TIMM_NAMES, Recipe, Size

__all__ = ["TIMM_NAMES", "Recipe", "Size", "demo", "methods", "protocols", "recipe", "recipes", "small"]
