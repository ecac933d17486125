def test_it(finished):
    folder, done = finished
    print(done.stdout[-3000:]); print(done.stderr[-6000:])
    import subprocess; print(subprocess.run(["find", str(folder), "-maxdepth", "2"], capture_output=True, text=True).stdout)
    print(folder)
    assert done.returncode == 0
