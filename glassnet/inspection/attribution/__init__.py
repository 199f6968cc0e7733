"""Attribution: which parts of an image made an output what it is. One signature, ten methods.

- `attributing`: `attribute`, the table of methods, targets and baselines.
- `question`: what a method is asked and what it answers.
- `gradients`, `grad_cam`, `perturbations`: methods that need the model alone. Captum does where it can.
- `relevance`: relevance carried back through the steps of a trace, for `lrp` and `deeplift`. Captum's own forms need
  every operation to be a module that is used once; a trace has functions, in-place and reused modules alike.
- `faithfulness`: deletion and insertion curves. `photo`: scores mapped back onto the original photo.
"""

from glassnet.inspection.attribution.attributing import METHODS, attribute
from glassnet.inspection.attribution.faithfulness import Faithfulness
from glassnet.inspection.attribution.photo import map_to_photo
from glassnet.inspection.attribution.result import Attribution

__all__ = ["METHODS", "Attribution", "Faithfulness", "attribute", "map_to_photo"]
