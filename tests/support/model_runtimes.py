"""ModelDeployments with runtimes of ours, plain and with everything said, for tests of what is made of them."""

from dataclasses import replace
from typing import Final

from baleen_core.model.schema import (
    Backend,
    Device,
    Expectation,
    Golden,
    GoldenInput,
    Gpu,
    Instances,
    ModelDeployment,
    Optimization,
    PodTemplate,
    Precision,
    Source,
    SourceType,
)
from baleen_operator.plan.manifests import Owner, RuntimeRules
from served_models import IMAGE_MODEL, TEXT_MODEL

OWNER: Final = Owner(namespace="trust-safety", name="starter", uid="5d0a3c1e-0000-4000-8000-000000000001")
RULES: Final = RuntimeRules(fetch_image="registry.example/baleen:1.0", allowed_images=("registry.example/triton",))

PACKAGE: Final = Source(type=SourceType.PACKAGE, uri="pkg:pypi/scores@1.0#model.onnx", sha256="ab" * 32)
GOLDEN: Final = Golden(
    input=GoldenInput(name="red.png", sha256="cd" * 32),
    expect=(Expectation(signal="sexual", value=900_000, tolerance=10_000),),
)

PLAIN: Final = ModelDeployment(
    name="starter",
    namespace="trust-safety",
    backend=Backend.PYTHON,
    image="registry.example/triton:25.08",
    models=(
        replace(IMAGE_MODEL, source=PACKAGE, golden=(GOLDEN,), memory_bytes=200 << 20),
        replace(TEXT_MODEL, source=PACKAGE, golden=(GOLDEN,)),
    ),
)
"""Two models on CPUs, in the Python form, with nothing said of pods."""

FULL: Final = ModelDeployment(
    name="starter",
    namespace="trust-safety",
    backend=Backend.ONNXRUNTIME,
    models=(
        replace(
            IMAGE_MODEL,
            source=PACKAGE,
            golden=(GOLDEN,),
            instances=Instances(count=2, kind=Device.GPU),
            optimization=Optimization(intra_op_threads=4, precision=Precision.FP16, engine_cache=True),
        ),
    ),
    replicas=3,
    gpu=Gpu(count=1),
    pod_template=PodTemplate(
        requests={"cpu": "2", "memory": "4Gi"},
        limits={"memory": "8Gi"},
        node_selector={"kubernetes.io/arch": "amd64"},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        affinity={
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 10,
                        "podAffinityTerm": {
                            "topologyKey": "topology.kubernetes.io/zone",
                            "labelSelector": {"matchLabels": {"app": "busy"}},
                        },
                    }
                ]
            }
        },
        topology_spread_constraints=(
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"moderation.baleen.dev/model-deployment": "starter"}},
            },
        ),
        image_pull_secrets=("registry",),
        service_account_name="models",
    ),
)
"""A model on GPUs with all that its author may say of pods, but for classes of the cluster."""
