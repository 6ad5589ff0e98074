"""Recipes: functions that return one frozen, typed value with everything a run depends on."""

from lamina.recipes.recipe import TIMM_NAMES, Recipe, Size

__all__ = ["TIMM_NAMES", "Recipe", "Size"]
