"""results/ on disk, and what the user hid or deleted in it."""
