"""Publishing: a dump goes to the Hugging Face Hub, and comes from there."""

from softlabels.hub.pulling import pull
from softlabels.hub.pushing import push

__all__ = ["pull", "push"]
