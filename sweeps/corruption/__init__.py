"""A trained LeNet on corrupted images, before and after recalibration."""
