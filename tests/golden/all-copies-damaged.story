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
$ quiet settle
$ quiet write 1 first
$ quiet settle
$ quiet write 1 second
$ quiet settle
$ crash 1 2 3
$ rot 1 first
$ rot 2 first
$ rot 3 first
$ quiet start 1 2 3
$ quiet tick 1 40
$ quiet settle
$ quiet tick 2 40
$ quiet settle
$ quiet tick 3 40
$ quiet settle
$ show
  node 1: quarantined; nobody asked has given entries 3 to 3; asking for a state as of entry 4 or later
  node 2: quarantined; nobody asked has given entries 3 to 3; asking for a state as of entry 4 or later
  node 3: quarantined; nobody asked has given entries 3 to 3; asking for a state as of entry 4 or later
