import json

import torch

from flatten_dense.profiling.machine import machine_facts, processor_name


def test_facts_name_what_a_time_depends_on():
    facts = machine_facts(torch.device("cpu"))
    assert facts["torch"] == torch.__version__
    assert facts["processor"] == processor_name() != ""
    assert facts["cores"] >= 1
    assert json.loads(json.dumps(facts)) == facts
