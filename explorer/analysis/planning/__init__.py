"""What a run or a device will take, before anything is paid for."""
