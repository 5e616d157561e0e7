"""Frame in, frame out: retention, cost, frontier, advice. No disk, no clock, no page."""
