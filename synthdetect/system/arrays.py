"""Array types that several packages use."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
"""An array of float64 of any shape."""
