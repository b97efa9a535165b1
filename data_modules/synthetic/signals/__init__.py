"""From the heart to the recording: electrodes, disturbances, and where signs are."""
