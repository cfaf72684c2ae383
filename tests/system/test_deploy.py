#!/usr/bin/env python3
"""The manifests of docs/deploy: YAML that says what docs/FENCE.md says, flags that exist, a configuration that serves."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request

from harness import netns
netns.enter()
from harness import cases
from harness.cases import at_end, case, equal, eventually, expect
from harness.gate import ROOT, SANITIZER, binary, run

try:
    import yaml
except ImportError:
    print(f"SKIP {os.path.basename(sys.argv[0])}: no python3-yaml", flush=True)
    sys.exit(0)

WORKLOAD, GATE = 1000, 65532


def load(name):
    with open(os.path.join(ROOT, "docs/deploy", name)) as f:
        return list(yaml.safe_load_all(f))


CONFIG_MAP, POD = load("kubernetes.yaml")
[COMPOSE] = load("docker-compose.yaml")
CONTAINERS = {c["name"]: c for c in POD["spec"]["initContainers"] + POD["spec"]["containers"]}


def help_of(command):
    return run(command, "--help").stdout


@case
def every_flag_exists():
    lines = [c["args"] for c in CONTAINERS.values() if c.get("command") == ["/usr/local/bin/sallyport"]]
    lines += [s["command"] for s in COMPOSE["services"].values() if s.get("entrypoint") == ["/usr/local/bin/sallyport"]]
    equal(len(lines), 4, "sallyport commands in the manifests")
    for line in lines:
        text = help_of(line[0])
        for word in line[1:]:
            if word.startswith("--"):
                expect(re.search(rf"^ +{word}\b", text, re.M), f"{line[0]} has no {word}")


@case
def the_flags_of_the_page_exist():
    with open(os.path.join(ROOT, "docs/FENCE.md")) as f:
        page = f.read()
    known = help_of("fence") + help_of("doctor")
    for flag in set(re.findall(r"--[a-z][a-z-]+", page)):
        expect(re.search(rf"{flag}\b", known), f"docs/FENCE.md names {flag}")


@case
def the_pods_containers_come_in_order():
    equal([c["name"] for c in POD["spec"]["initContainers"]], ["fence", "token", "gate"], "init containers")
    equal([c.get("restartPolicy") for c in POD["spec"]["initContainers"]], [None, "Always", "Always"], "native sidecars")
    expect(CONTAINERS["gate"]["startupProbe"] and CONTAINERS["gate"]["readinessProbe"], "the gate has no probes")
    services = COMPOSE["services"]
    equal(services["workload"]["depends_on"], {"fence": {"condition": "service_completed_successfully"}}, "the workload waits for the fence")
    equal({s.get("network_mode") for n, s in services.items() if n != "gate"}, {"service:gate"}, "network modes")


@case
def only_the_fence_has_a_capability():
    for name, c in CONTAINERS.items():
        s = c["securityContext"]
        equal(s["capabilities"]["drop"], ["ALL"], f"{name}: dropped")
        equal(s["capabilities"].get("add"), ["NET_ADMIN"] if name == "fence" else None, f"{name}: added")
        equal(s["allowPrivilegeEscalation"], False, f"{name}: privilege escalation")
    for name, s in COMPOSE["services"].items():
        equal(s["cap_drop"], ["ALL"], f"{name}: dropped")
        equal(s.get("cap_add"), ["NET_ADMIN"] if name == "fence" else None, f"{name}: added")
        equal(s["security_opt"], ["no-new-privileges:true"], f"{name}: no new privileges")


@case
def the_workload_is_another_user_without_secrets():
    equal(CONTAINERS["workload"]["securityContext"]["runAsUser"], WORKLOAD, "workload")
    equal(CONTAINERS["gate"]["securityContext"]["runAsUser"], GATE, "gate")
    for args in (CONTAINERS["fence"]["args"], COMPOSE["services"]["fence"]["command"]):
        equal(args[args.index("--proxy-uid") + 1], str(GATE), "the fence's user")
    equal([m["name"] for m in CONTAINERS["workload"]["volumeMounts"]], ["work"], "what the workload mounts")
    equal(COMPOSE["services"]["workload"]["volumes"], ["work:/work"], "what the workload mounts in compose")
    expect(POD["spec"]["automountServiceAccountToken"] is False, "the service account's token is mounted")
    expect(not any("jwt" in json.dumps(e).lower() for e in CONTAINERS["workload"]["env"]), "a token in the workload's environment")
    equal({e["name"]: e["value"] for e in CONTAINERS["workload"]["env"]}, COMPOSE["services"]["workload"]["environment"], "the environments")


FOLDER = tempfile.mkdtemp(prefix="deploy-")
os.chmod(FOLDER, 0o755)
at_end(lambda: shutil.rmtree(FOLDER, ignore_errors=True))


def serves(name, config, policy):
    """The configuration, with its absolute paths below a folder of ours: it becomes ready and refuses what it should."""
    base = os.path.join(FOLDER, name)
    for d in ("etc/sallyport/keys", "etc/sallyport/policies", "run/sallyport", "var/log/sallyport"):
        os.makedirs(os.path.join(base, d))
    for at in re.findall(r'"(/(?:etc|run|var)/[^"]*)"', config):
        config = config.replace(f'"{at}"', json.dumps(base + at))
    if not netns.privileged():  # nobody else exists in this user namespace
        config = json.dumps({**json.loads(config), "user": None})
    netns.write(f"{base}/etc/sallyport/sallyport.json", config)
    netns.write(f"{base}/etc/sallyport/policies/default.json", policy)
    run("token", "keygen", "--kid", "k1", "--private", f"{base}/private.pem", "--jwks", f"{base}/etc/sallyport/keys/jwks.json")
    token = run("token", "mint", "--key", f"{base}/private.pem", "--kid", "k1", "--sub", "sbx-1", "--aud", "sallyport").stdout
    with open(os.open(f"{base}/run/sallyport/token", os.O_WRONLY | os.O_CREAT, 0o400), "w") as f:
        f.write(token)
    log = open(f"{base}/stderr", "w+")
    p = subprocess.Popen([binary(), "serve", "--config", f"{base}/etc/sallyport/sallyport.json", "--drain", "0"], stderr=log,
                         stdout=subprocess.DEVNULL, cwd=base)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ready():
        expect(p.poll() is None, f"serve ended with {p.returncode}: {open(log.name).read()}")
        try:
            return direct.open("http://127.0.0.1:9300/readyz", timeout=2).status == 200
        except OSError:
            return False
    try:
        eventually(ready, "readyz", 20)
        through = urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:3128"}))
        try:
            through.open("http://www.example.net/", timeout=5)
            raise cases.Failed("a host that the policy does not name was let through")
        except urllib.error.HTTPError as e:
            equal((e.code, e.headers["x-deny-reason"]), (403, "host_not_allowed"), "another host, without a token of the client's own")
    finally:
        p.terminate()
        p.wait(20)
    expect(not SANITIZER.search(open(log.name).read()), open(log.name).read())


@case
def the_pods_configuration_serves():
    serves("pod", CONFIG_MAP["data"]["sallyport.json"], CONFIG_MAP["data"]["default.json"])


@case
def the_compose_configuration_serves():
    serves("compose", COMPOSE["configs"]["gate"]["content"], COMPOSE["configs"]["policy"]["content"])


if __name__ == "__main__":
    cases.main()
