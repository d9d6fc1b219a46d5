"""Controllers that policies are compared with, a module for each simulation that has one.

In each, ``make(env)`` returns ``policy(observation, step)``, which gives the action.
"""
