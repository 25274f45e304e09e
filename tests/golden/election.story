# An election. Nobody leads; node 1's clock runs out first. It asks whether it would be elected (pre-vote) before it
# begins a term, and every vote is on a disk before it is sent.
$ nodes 3
  node 1 term 1: leader nobody
  node 1 wants to write its birth at 1@1 (term 1, commit 1)
  node 1 has done: write its birth at 1@1 (term 1, commit 1)
  node 2 term 1: leader nobody
  node 2 wants to write its birth at 1@1 (term 1, commit 1)
  node 2 has done: write its birth at 1@1 (term 1, commit 1)
  node 3 term 1: leader nobody
  node 3 wants to write its birth at 1@1 (term 1, commit 1)
  node 3 has done: write its birth at 1@1 (term 1, commit 1)
$ tick 1 20
  node 1 sends node 2 whether it would vote for it (log ends at 1@1) (term 2)
  node 1 sends node 3 whether it would vote for it (log ends at 1@1) (term 2)
$ deliver 1 2
  node 2 receives from node 1 whether it would vote for it (log ends at 1@1) (term 2)
  node 2 sends node 1 that it would vote for it (term 2)
$ deliver 2 1
  node 1 receives from node 2 that it would vote for it (term 2)
  node 1 term 2: leader nobody
  node 1 wants to write term 2, vote for node 1, commit 1
# A majority would vote: now it begins a term. Its own vote for itself goes to its disk before the requests leave.
$ disk 1
  node 1 has done: write term 2, vote for node 1, commit 1
  node 1 sends node 2 a request for its vote (log ends at 1@1) (term 2)
  node 1 sends node 3 a request for its vote (log ends at 1@1) (term 2)
$ deliver 1 2
  node 2 receives from node 1 a request for its vote (log ends at 1@1) (term 2)
  node 2 term 2: leader nobody
  node 2 wants to write term 2, vote for node 1, commit 1
# Node 2 promises its vote to its disk, and only then to node 1.
$ disk 2
  node 2 has done: write term 2, vote for node 1, commit 1
  node 2 sends node 1 its vote (term 2)
$ deliver 2 1
  node 1 receives from node 2 its vote (term 2)
  node 1 term 2: leader 1
  node 1 wants to write entries 2@2 (term 2, vote for node 1, commit 1)
  node 1 sends node 2 entry 2@2 after 1@1, commit 1 (term 2)
  node 1 sends node 3 entry 2@2 after 1@1, commit 1 (term 2)
# Elected, it begins its term with an empty entry, which leaves for the others beside its own write.
$ settle
  node 1 has done: write entries 2@2 (term 2, vote for node 1, commit 1)
  node 2 receives from node 1 entry 2@2 after 1@1, commit 1 (term 2)
  node 2 term 2: leader 1
  node 2 wants to write entries 2@2 (term 2, vote for node 1, commit 1)
  node 3 receives from node 1 whether it would vote for it (log ends at 1@1) (term 2)
  node 3 sends node 1 that it would vote for it (term 2)
  node 2 has done: write entries 2@2 (term 2, vote for node 1, commit 1)
  node 2 sends node 1 that it has everything up to 2 (term 2)
  node 3 receives from node 1 a request for its vote (log ends at 1@1) (term 2)
  node 3 term 2: leader nobody
  node 3 wants to write term 2, vote for node 1, commit 1
  node 1 receives from node 2 that it has everything up to 2 (term 2)
  node 1 wants to apply 2@2
  node 1 sends node 2 no entry after 2@2, commit 2 (term 2)
  node 1 receives from node 3 that it would vote for it (term 2)
  node 1 has done: apply 2@2
  node 1 term 2: leader 1, and serves
  node 3 has done: write term 2, vote for node 1, commit 1
  node 3 sends node 1 its vote (term 2)
  node 2 receives from node 1 no entry after 2@2, commit 2 (term 2)
  node 2 wants to apply 2@2
  node 2 sends node 1 that it has everything up to 2 (term 2)
  node 3 receives from node 1 entry 2@2 after 1@1, commit 1 (term 2)
  node 3 term 2: leader 1
  node 3 wants to write entries 2@2 (term 2, vote for node 1, commit 1)
  node 1 receives from node 3 its vote (term 2)
  node 2 has done: apply 2@2
  node 3 has done: write entries 2@2 (term 2, vote for node 1, commit 1)
  node 3 sends node 1 that it has everything up to 2 (term 2)
  node 1 receives from node 2 that it has everything up to 2 (term 2)
  node 1 receives from node 3 that it has everything up to 2 (term 2)
  node 1 sends node 3 no entry after 2@2, commit 2 (term 2)
  node 3 receives from node 1 no entry after 2@2, commit 2 (term 2)
  node 3 wants to apply 2@2
  node 3 sends node 1 that it has everything up to 2 (term 2)
  node 3 has done: apply 2@2
  node 1 receives from node 3 that it has everything up to 2 (term 2)
$ show
  node 1: Leader, term 2, log 1@1 to 2@2, committed 2, applied 2@2
  node 2: Follower, term 2, log 1@1 to 2@2, committed 2, applied 2@2
  node 3: Follower, term 2, log 1@1 to 2@2, committed 2, applied 2@2
