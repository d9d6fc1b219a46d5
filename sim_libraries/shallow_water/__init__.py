"""Shallow water: a harbour under long waves, domain-decomposed in two dimensions."""

from __future__ import annotations

from alchemist_ray.sim_libraries.shallow_water.simulation import ShallowWater

__version__ = "0.1"

__all__ = ["ShallowWater"]
