# Node 3's newest segment is gone. It does not know what it has promised: a vote or an acknowledgement may have been in
# it. It asks everybody for their terms, and the leader to have a majority confirm, without it, where its log ends; a
# state as of there or later is at least as much as was promised.
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
$ quiet crash 3
$ quiet start 3
  (2 lines, hash 896c6eda)
$ quiet write 1 first
  (3 lines, hash 17422ab7)
$ quiet settle
  (35 lines, hash 25052484)
$ quiet tick 1 3
  (2 lines, hash e4cabfb1)
$ quiet settle
  (6 lines, hash 14237c4a)
$ crash 3
$ lose 3
$ start 3
  node 3 finds: damage: segment 2, the newest, is missing; until something later proves otherwise, every group may be touched
  node 3 QUARANTINED: segment 2, the newest, is missing
  node 3 wants to let go of the log below 2
$ show
  node 1: Leader, term 2, log 1@1 to 3@2, committed 3, applied 3@2
  node 2: Follower, term 2, log 1@1 to 3@2, committed 3, applied 3@2
  node 3: quarantined; what it has promised is not known; waiting for what node(s) 1, 2 say of their terms
$ tick 3
  node 3 repairing: what it has promised is not known; waiting for what node(s) 1, 2 say of their terms
  node 3 sends node 1 that it does not know its promises
  node 3 sends node 2 that it does not know its promises
$ settle
  node 3 has done: let go of the log below 2
  node 1 receives from node 3 that it does not know its promises
  node 1 sends node 3 that it is in term 2
  node 1 sends node 2 a heartbeat, commit 3 (term 2)
  node 1 sends node 3 a heartbeat, commit 3 (term 2)
  node 2 receives from node 3 that it does not know its promises
  node 2 sends node 3 that it is in term 2
  node 2 sends node 3 that node 1 leads
  node 2 receives from node 1 a heartbeat, commit 3 (term 2)
  node 2 sends node 1 an answer to its heartbeat (term 2)
  node 3 receives from node 1 that it is in term 2
  node 3 receives from node 2 that it is in term 2
  node 3 receives from node 1 a heartbeat, commit 3 (term 2)
  node 1 receives from node 2 an answer to its heartbeat (term 2)
  node 1 sends node 3 that a majority has confirmed that it leads term 2, with a log up to 3
  node 3 receives from node 2 that node 1 leads
  node 3 receives from node 1 that a majority has confirmed that it leads term 2, with a log up to 3
# It is asked again every election timeout.
$ tick 3 11
  node 3 repairing: asking for a state as of entry 3 or later
  node 3 sends node 1 for a state at 3 or later; 0@0 is committed
  node 3 sends node 2 for a state at 3 or later; 0@0 is committed
$ settle
  node 1 receives from node 3 for a state at 3 or later; 0@0 is committed
  node 1 wants to take its state for others
  node 2 receives from node 3 for a state at 3 or later; 0@0 is committed
  node 2 wants to take its state for others
  node 1 has done: take its state for others
  node 1 sends node 3 that it has the state at 3@2
  node 2 has done: take its state for others
  node 2 sends node 3 that it has the state at 3@2
  node 3 receives from node 1 that it has the state at 3@2
  node 3 wants to fetch the state at 3@2 from node 1
  node 3 receives from node 2 that it has the state at 3@2
  node 3 has done: fetch the state at 3@2 from node 1
  node 3 sends node 1 for the state at 3@2
  node 1 receives from node 3 for the state at 3@2
  node 1 sends node 3 the state at 3@2, without records
  node 3 receives from node 1 the state at 3@2, without records
  node 3 sends node 1 for records 0 to 0
  node 1 receives from node 3 for records 0 to 0
  node 1 sends node 3 1 batches of records
  node 3 receives from node 1 1 batches of records
  node 3 wants to write that it will switch to the state at 3@2 (term 2, vote for node 1, commit 1)
  node 3 has done: write that it will switch to the state at 3@2 (term 2, vote for node 1, commit 1)
  node 3 wants to switch to the state at 3@2
  node 3 has done: switch to the state at 3@2
  node 3 wants to write that it has switched to the state at 3@2 (term 2, vote for node 1, commit 3)
  node 3 has done: write that it has switched to the state at 3@2 (term 2, vote for node 1, commit 3)
  node 3 wants to look at its log and its state
  node 3 has done: look at its log and its state
  node 3 REPAIRED, its log ends at 3@2
  node 3 term 2: leader nobody
$ show
  node 1: Leader, term 2, log 1@1 to 3@2, committed 3, applied 3@2
  node 2: Follower, term 2, log 1@1 to 3@2, committed 3, applied 3@2
  node 3: Follower, term 2, log 3@2 to 3@2, committed 3, applied 3@2
