"""The names of the files in a dump's folder, but for those of its shards, which the plan gives."""

PLAN, MANIFEST, CARD = "plan.json", "softlabels.json", "README.md"
OWN = (PLAN, MANIFEST, CARD, "data", "commits", "shared")  # all that lies directly in the folder


def commit_name(shard: int) -> str:
    return f"commits/{shard:05d}.json"
