"""What halts an agent, or the fleet, without a person."""
