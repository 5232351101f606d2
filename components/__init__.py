"""ComponentResources and the pure decisions behind them. Nothing here reads configuration."""
