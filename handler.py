"""Where the RunPod Hub looks for the serverless worker."""

import os

from job.runpod.worker import serve

serve(os.environ)
