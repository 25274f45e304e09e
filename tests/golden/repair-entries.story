# Three records are on every disk. Node 3 loses power before it has flushed its state, and when it comes back, the
# second record's entry is damaged in its log. It knows what it had promised: it neither votes nor acknowledges, asks a
# peer for that entry, which the peer proves to have by an entry that came after it, and takes part again.
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
$ quiet write 1 first
  (3 lines, hash 17422ab7)
$ quiet settle
  (29 lines, hash 2cc7c8e4)
$ quiet write 1 second
  (3 lines, hash fea1da47)
$ quiet settle
  (29 lines, hash f98af268)
$ quiet write 1 third
  (3 lines, hash 335876f8)
$ quiet settle
  (29 lines, hash 8267ca2d)
$ show
  node 1: Leader, term 2, log 1@1 to 5@2, committed 5, applied 5@2
  node 2: Follower, term 2, log 1@1 to 5@2, committed 5, applied 5@2
  node 3: Follower, term 2, log 1@1 to 5@2, committed 5, applied 5@2
$ crash 3
$ rot 3 second
$ start 3
  node 3 finds: damage: turn 6 in segment 1 is not whole
  node 3 finds: turn 6 in segment 1, group 1: 1 of its entries 4 to 4 are damaged
  node 3 QUARANTINED: entries are damaged in 1 place(s) between 4 and 4: turn 6 in segment 1, group 1: 1 of its entries 4 to 4 are damaged
  node 3 wants to let go of the log below 2
$ show
  node 1: Leader, term 2, log 1@1 to 5@2, committed 5, applied 5@2
  node 2: Follower, term 2, log 1@1 to 5@2, committed 5, applied 5@2
  node 3: quarantined; asking for entries 4 to 4
# Its first question is due with the first tick.
$ tick 3
  node 3 repairing: asking for entries 4 to 4
  node 3 sends node 1 for its lost entries 4 to 4, before 5@2
$ settle
  node 3 has done: let go of the log below 2
  node 1 receives from node 3 for its lost entries 4 to 4, before 5@2
  node 1 wants to read entries 4 to 4
  node 1 has done: read entries 4 to 4
  node 1 sends node 3 the entries 4@2
  node 3 receives from node 1 the entries 4@2
  node 3 wants to write lost entries 4@2 (term 2, vote for node 1, commit 4)
  node 3 has done: write lost entries 4@2 (term 2, vote for node 1, commit 4)
  node 3 wants to look at its log and its state
  node 3 has done: look at its log and its state
  node 3 REPAIRED, its log ends at 5@2
  node 3 term 2: leader nobody
  node 3 wants to read entries 2 to 4
  node 3 has done: read entries 2 to 4
  node 3 wants to apply 2@2 to 4@2
  node 3 has done: apply 2@2 to 4@2
  node 3 entry 3@2 is the record at offset 0
  node 3 entry 4@2 is the record at offset 1
$ show
  node 1: Leader, term 2, log 1@1 to 5@2, committed 5, applied 5@2
  node 2: Follower, term 2, log 1@1 to 5@2, committed 5, applied 5@2
  node 3: Follower, term 2, log 1@1 to 5@2, committed 4, applied 4@2
# It takes part: with node 1 gone, nodes 2 and 3 are a majority.
$ crash 1
$ quiet tick 3 12
$ quiet settle
$ quiet tick 2 25
  (5 lines, hash 930acb76)
$ quiet settle
  (42 lines, hash 6d0b69c2)
$ write 2 fourth
  node 2 wants to write entries 7@3 (term 3, vote for node 2, commit 6)
  node 2 sends node 3 entry 7@3 after 6@3, commit 6 (term 3)
$ quiet settle
  (17 lines, hash 332f65bd)
$ show
  node 1: down
  node 2: Leader, term 3, log 1@1 to 7@3, committed 7, applied 7@3
  node 3: Follower, term 3, log 1@1 to 7@3, committed 7, applied 7@3
