# SPDX-License-Identifier: Apache-2.0
"""--pack-cache end to end: a second start maps what the first one packed, and nobody can tell."""

import os
import shutil

import pytest
import worlds

N_TOKENS = 12
MAPS = "packed weights from"
KEEPS = "packed weights are kept as"


class Cache:
    """A cache folder, and starts that use it."""

    def __init__(self, lockstep, folder, checkpoint):
        self.lockstep = lockstep
        self.folder = folder
        self.checkpoint = checkpoint

    def files(self):
        packed = self.folder / "lockstep/packed"
        return sorted(packed.iterdir()) if packed.exists() else []

    def start(self, n_ranks, *options, model=None):
        command = self.checkpoint.command(N_TOKENS, *worlds.GREEDY, "--verbose", "--pack-cache",
                                          "--tp", n_ranks, *options)
        command[1] = model or command[1]
        return worlds.Leader(self.lockstep, *command, env={"XDG_CACHE_HOME": str(self.folder)})

    def run(self, n_ranks, *options, model=None):
        """Answer, and what the leader said."""
        with self.start(n_ranks, *options, model=model) as leader:
            assert leader.end() == 0, str(leader)
        return bytes(leader.out), leader.stderr


@pytest.fixture
def cache(lockstep, tmp_path, checkpoint):
    return Cache(lockstep, tmp_path / "cache", checkpoint)


@pytest.fixture(scope="module")
def answer(lockstep, checkpoint):
    """Without the cache: the same for every number of ranks."""
    command = checkpoint.command(N_TOKENS, *worlds.GREEDY, "--tp", 1)
    return worlds.run(lockstep, *command)[0]


@pytest.mark.san
@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_second_start_maps(cache, checkpoint, tmp_path, run, answer, n_ranks):
    text, said = cache.run(n_ranks)
    assert text == answer and KEEPS in said and MAPS not in said, said
    assert len(cache.files()) == n_ranks + 2
    text, said = cache.run(n_ranks)
    assert text == answer and MAPS in said and KEEPS not in said, said
    assert ", 0.0 MiB read" in said, said

    prompt = ",".join(map(str, checkpoint.prompt))
    made = []
    for options in ([], ["--pack-cache"], ["--pack-cache"]):
        made.append(tmp_path / f"{len(made)}.npy")
        process = run("logits", checkpoint.path, "--prompt-ids", prompt, "--out", made[-1], "--tp",
                      n_ranks, *options, env={**os.environ, "XDG_CACHE_HOME": str(cache.folder)})
        assert process.returncode == 0, process.stderr
    assert len({path.read_bytes() for path in made}) == 1


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("where", ["step=4", "phase=loading"])
def test_healing(cache, answer, warm, where):
    if warm:
        cache.run(3)
    text, said = cache.run(3, "--fault", f"kill:rank=1,{where}")
    assert text == answer and "injected fault" in said, said
    assert said.count(MAPS) == warm and said.count(KEEPS) == (not warm), said
    if where == "step=4" or warm:  # the successors map what was kept
        assert ", 0.0 MiB read" in said.partition("injected fault")[2], said
    assert len(cache.files()) == 3 + 2


def test_another_model_in_its_place(cache, checkpoint, tmp_path, answer):
    """Of the same size and time, which the leader cannot tell from the first, but the ranks can."""
    model = tmp_path / "model"
    shutil.copytree(checkpoint.path, model)
    cache.run(2, model=model)
    for path in list(model.iterdir()):
        copy = path.with_name("copy")
        shutil.copy2(path, copy)  # with its time
        os.replace(copy, path)
    text, said = cache.run(2, model=model)
    assert text == answer and MAPS in said and "were of no use" in said and KEEPS in said, said
    text, said = cache.run(2, model=model)
    assert text == answer and MAPS in said and "no use" not in said, said
    assert len(cache.files()) == 2 + 2


def test_changed_model(cache, checkpoint, tmp_path, answer):
    model = tmp_path / "model"
    shutil.copytree(checkpoint.path, model)
    cache.run(2, model=model)
    for path in model.glob("*.safetensors"):
        os.utime(path)
    text, said = cache.run(2, model=model)
    assert text == answer and MAPS not in said and KEEPS in said, said


@pytest.mark.parametrize("harm", ["cut", "flip"])
def test_damaged(cache, answer, harm):
    cache.run(2)
    victim = cache.files()[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data[:-1] if harm == "cut" else data)
    text, said = cache.run(2)
    assert text == answer and "are damaged" in said and KEEPS in said, said
    text, said = cache.run(2)
    assert text == answer and MAPS in said, said


def test_nowhere_to_keep(cache, answer):
    cache.folder.write_text("a file where the folder should be")
    text, said = cache.run(2)
    assert text == answer and "packed weights are not kept" in said, said


def test_two_at_once(cache, answer):
    with cache.start(2) as one, cache.start(2) as other:
        assert one.end() == 0 and other.end() == 0, f"{one}\n{other}"
    assert bytes(one.out) == bytes(other.out) == answer
    assert cache.run(2)[0] == answer
    text, said = cache.run(2)
    assert text == answer and MAPS in said, said
    assert len(cache.files()) == 2 + 2


def test_killed_while_it_loads(cache, answer):
    """Nothing is left of a start that never came to an end."""
    with cache.start(2, "--fault", "stop:rank=1,phase=loading", "--hang-ms", 60000) as leader:
        worlds.poll(lambda: any(worlds.state_of(p) == "T" for p in leader.ranks().values()))
        leader.process.kill()
    assert cache.files() == []
    text, said = cache.run(2)
    assert text == answer and KEEPS in said, said
