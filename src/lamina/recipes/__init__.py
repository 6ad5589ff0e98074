"""Recipes: functions that return one frozen, typed value with everything a run depends on."""

from lamina.evaluate.finetune.recipes import protocols
from lamina.methods.catalog import demo, methods, recipe, recipes, small
from lamina.recipes.recipe import TIMM_NAMES, Recipe, Size

__all__ = ["TIMM_NAMES", "Recipe", "Size", "demo", "methods", "protocols", "recipe", "recipes", "small"]
