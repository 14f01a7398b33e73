"""Watches how each agent's runs change from day to day; emits one alert for each cause of a change."""
