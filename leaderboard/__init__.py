"""Results that can be ranked; knows result records and statistics only."""
