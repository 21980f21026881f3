import importlib.util, sys, time, pytest
spec=importlib.util.spec_from_file_location('tp','/work/main/tests/crash/test_points.py'); tp=importlib.util.module_from_spec(spec); spec.loader.exec_module(tp)
@pytest.mark.parametrize("n", range(8))
def test_rep(site, n):
    t=time.time(); tp.test_a_reaper_killed_in_its_work_is_followed_by_the_next(site); d=time.time()-t
    print('TOOK', round(d,1))
    if d>15: print((site.box.home/'daemon.log').read_text()[-3000:])
