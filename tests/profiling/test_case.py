from flatten_dense.profiling import Case


def test_a_case_survives_the_way_to_another_process():
    case = Case("flatten_pvt_test", (64, 96), {"attention": "LLSS"}, 2, True, "bfloat16", "cuda:1", 3, ("a.b",))
    assert Case.from_json(case.to_json()) == case


def test_its_text_is_one_line():
    assert "\n" not in Case("a\nb", (64, 96)).to_json()
