"""From a job to the bodies of its Kubernetes objects: plain dicts, deterministic, no client.

What the user's template says stays as it is, whatever fields the API has; what is ours is added around it.
"""

from backupsync_operator.render.context import Images, JobContext
from backupsync_operator.render.objects import budget, claim, secret, service
from backupsync_operator.render.pods import pod

__all__ = ["Images", "JobContext", "budget", "claim", "pod", "secret", "service"]
