"""Typed recipe and platform; see ``load.load_config``."""

from pipelines.config.load import Config, content_hash, load_config, load_platform, load_predict
from pipelines.config.platform import Platform
from pipelines.config.recipe import Recipe

__all__ = ["Config", "Platform", "Recipe", "content_hash", "load_config", "load_platform", "load_predict"]
