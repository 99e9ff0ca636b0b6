"""Files in, frames and masks out: DAVIS, YouTube-VOS, video files, unlabelled clips, synthetic videos."""
