"""The operating point, from normal images alone."""

from components.calibration.component import CalibrationSettings, calibrate
from components.calibration.conformal import decide, judge, of_group, p_values

__all__ = ["CalibrationSettings", "calibrate", "decide", "judge", "of_group", "p_values"]
