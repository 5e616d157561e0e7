"""What people look at and take away: figures, tables, files."""
