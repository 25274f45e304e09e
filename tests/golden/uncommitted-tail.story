# A leader is cut off with an entry that only it has. Another one is elected without it; when the old leader comes back,
# its entry gives way, and whoever wrote it is told that it certainly was not done.
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
$ quiet tick 1 20
  (2 lines, hash a088aa4a)
$ quiet settle
  (55 lines, hash cbf4f60a)
$ write 1 alone
  node 1 wants to write entries 3@2 (term 2, vote for node 1, commit 2)
  node 1 sends node 2 entry 3@2 after 2@2, commit 2 (term 2)
  node 1 sends node 3 entry 3@2 after 2@2, commit 2 (term 2)
$ disk 1
  node 1 has done: write entries 3@2 (term 2, vote for node 1, commit 2)
$ drop 1 2
$ drop 1 3
# The others hear nothing of node 1 any more.
$ quiet tick 3 10
$ quiet settle without 1
$ quiet tick 2 20
  (3 lines, hash cb3f3401)
$ quiet settle without 1
  (34 lines, hash 62f46891)
$ show
  node 1: Leader, term 2, log 1@1 to 3@2, committed 2, applied 2@2
  node 2: Leader, term 3, log 1@1 to 3@3, committed 3, applied 3@3
  node 3: Follower, term 3, log 1@1 to 3@3, committed 3, applied 3@3
$ write 2 together
  node 2 wants to write entries 4@3 (term 3, vote for node 2, commit 3)
  node 2 sends node 3 entry 4@3 after 3@3, commit 3 (term 3)
$ quiet settle without 1
  (17 lines, hash 0176e94d)
$ show
  node 1: Leader, term 2, log 1@1 to 3@2, committed 2, applied 2@2
  node 2: Leader, term 3, log 1@1 to 4@3, committed 4, applied 4@3
  node 3: Follower, term 3, log 1@1 to 4@3, committed 4, applied 4@3
# Node 1 is back, still believing that it leads.
$ tick 2 3
  node 2 sends node 1 a heartbeat, commit 0 (term 3)
  node 2 sends node 3 a heartbeat, commit 4 (term 3)
$ settle
  node 1 receives from node 2 a heartbeat, commit 0 (term 3)
  node 1 term 3: leader 2
  node 1 wants to write term 3, commit 2
  node 3 receives from node 2 a heartbeat, commit 4 (term 3)
  node 3 sends node 2 an answer to its heartbeat (term 3)
  node 1 has done: write term 3, commit 2
  node 1 sends node 2 an answer to its heartbeat (term 3)
  node 2 receives from node 1 an answer to its heartbeat (term 3)
  node 2 wants to read entries 3 to 4
  node 2 receives from node 3 an answer to its heartbeat (term 3)
  node 2 has done: read entries 3 to 4
  node 2 sends node 1 entries 3@3 to 4@3 after 2@2, commit 4 (term 3)
  node 1 receives from node 2 entries 3@3 to 4@3 after 2@2, commit 4 (term 3)
  node 1 wants to write entries 3@3 to 4@3 (term 3, commit 4)
  node 1 has done: write entries 3@3 to 4@3 (term 3, commit 4)
  node 1 wants to apply 3@3 to 4@3
  node 1 sends node 2 that it has everything up to 4 (term 3)
  node 2 receives from node 1 that it has everything up to 4 (term 3)
  node 2 sends node 1 no entry after 4@3, commit 4 (term 3)
  node 1 has done: apply 3@3 to 4@3
  node 1 entry 4@3 is the record at offset 0
  node 1 answers: Refused(Overwritten)
  node 1 receives from node 2 no entry after 4@3, commit 4 (term 3)
  node 1 sends node 2 that it has everything up to 4 (term 3)
  node 2 receives from node 1 that it has everything up to 4 (term 3)
$ show
  node 1: Follower, term 3, log 1@1 to 4@3, committed 4, applied 4@3
  node 2: Leader, term 3, log 1@1 to 4@3, committed 4, applied 4@3
  node 3: Follower, term 3, log 1@1 to 4@3, committed 4, applied 4@3
