# An entry that is damaged on every disk, and in nobody's flushed state, can't be given back by anybody. The group stops
# and says so; nothing is made up, and nothing is cut off.
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
$ crash 1 2 3
$ rot 1 first
$ rot 2 first
$ rot 3 first
$ start 1 2 3
  node 1 finds: damage: turn 5 in segment 1 is not whole
  node 1 finds: turn 5 in segment 1, group 1: 1 of its entries 3 to 3 are damaged
  node 1 QUARANTINED: entries are damaged in 1 place(s) between 3 and 3: turn 5 in segment 1, group 1: 1 of its entries 3 to 3 are damaged
  node 1 wants to let go of the log below 2
  node 2 finds: damage: turn 5 in segment 1 is not whole
  node 2 finds: turn 5 in segment 1, group 1: 1 of its entries 3 to 3 are damaged
  node 2 QUARANTINED: entries are damaged in 1 place(s) between 3 and 3: turn 5 in segment 1, group 1: 1 of its entries 3 to 3 are damaged
  node 2 wants to let go of the log below 2
  node 3 finds: damage: turn 5 in segment 1 is not whole
  node 3 finds: turn 5 in segment 1, group 1: 1 of its entries 3 to 3 are damaged
  node 3 QUARANTINED: entries are damaged in 1 place(s) between 3 and 3: turn 5 in segment 1, group 1: 1 of its entries 3 to 3 are damaged
  node 3 wants to let go of the log below 2
$ quiet tick 1 40
  (5 lines, hash 38dd6b74)
$ quiet settle
  (15 lines, hash e595984d)
$ quiet tick 2 40
  (5 lines, hash c13fd801)
$ quiet settle
  (12 lines, hash 2b4df6a3)
$ quiet tick 3 40
  (5 lines, hash 367f9fc3)
$ quiet settle
  (12 lines, hash f95144a2)
$ show
  node 1: quarantined; nobody asked has given entries 3 to 3; asking for a state as of entry 4 or later
  node 2: quarantined; nobody asked has given entries 3 to 3; asking for a state as of entry 4 or later
  node 3: quarantined; nobody asked has given entries 3 to 3; asking for a state as of entry 4 or later
