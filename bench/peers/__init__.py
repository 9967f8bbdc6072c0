"""Other gateways, measured side by side with ours."""
