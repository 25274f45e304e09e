# Node 3 is away while more is written than the log keeps. The state machines are flushed, the log behind them is let
# go, and what node 3 lacks can't be sent to it entry by entry any more: it fetches the state instead.
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
$ write 1 before
  node 1 wants to write entries 3@2 (term 2, vote for node 1, commit 2)
  node 1 sends node 2 entry 3@2 after 2@2, commit 2 (term 2)
  node 1 sends node 3 entry 3@2 after 2@2, commit 2 (term 2)
$ quiet settle
  (29 lines, hash 2cc7c8e4)
$ crash 3
$ quiet flush 1 2
  (2 lines, hash 27455481)
$ quiet write 1 long- 200000
  (3 lines, hash fea1da47)
$ quiet settle
  (20 lines, hash 75bef3db)
$ quiet flush 1 2
  (2 lines, hash 4775fc13)
$ quiet write 1 longer- 200000
  (3 lines, hash 335876f8)
$ quiet settle
  (20 lines, hash 598f02b9)
$ quiet write 1 longest- 200000
  (3 lines, hash 9ca5b244)
$ quiet settle
  (18 lines, hash aa73b3cb)
$ show
  node 1: Leader, term 2, log 1@1 to 6@2, committed 6, applied 6@2
  node 2: Follower, term 2, log 1@1 to 6@2, committed 6, applied 6@2
  node 3: down
$ quiet start 3
  (3 lines, hash ab126f6d)
$ quiet settle
  (4 lines, hash 201ff75c)
# The leader hears of node 3 again, and finds that the entries it lacks are gone: it takes its state, and offers it.
$ tick 1 3
  node 1 sends node 2 a heartbeat, commit 6 (term 2)
  node 1 sends node 3 a heartbeat, commit 3 (term 2)
$ settle
  node 2 receives from node 1 a heartbeat, commit 6 (term 2)
  node 2 sends node 1 an answer to its heartbeat (term 2)
  node 3 receives from node 1 a heartbeat, commit 3 (term 2)
  node 3 term 2: leader 1
  node 3 wants to read entries 3 to 3
  node 3 has done: read entries 3 to 3
  node 3 wants to apply 3@2
  node 3 sends node 1 an answer to its heartbeat (term 2)
  node 1 receives from node 2 an answer to its heartbeat (term 2)
  node 1 receives from node 3 an answer to its heartbeat (term 2)
  node 1 sends node 3 no entry after 6@2, commit 6 (term 2)
  node 3 has done: apply 3@2
  node 3 entry 3@2 is the record at offset 0
  node 3 receives from node 1 no entry after 6@2, commit 6 (term 2)
  node 3 sends node 1 that it has everything up to 6, refused (term 2)
  node 1 receives from node 3 that it has everything up to 6, refused (term 2)
  node 1 wants to read entries 4 to 6
  node 1 has done: read entries 4 to 6
  node 1 wants to take its state for others
  node 1 has done: take its state for others
$ tick 1 3
  node 1 sends node 2 a heartbeat, commit 6 (term 2)
  node 1 sends node 3 a heartbeat, commit 3 (term 2)
$ settle
  node 2 receives from node 1 a heartbeat, commit 6 (term 2)
  node 2 sends node 1 an answer to its heartbeat (term 2)
  node 3 receives from node 1 a heartbeat, commit 3 (term 2)
  node 3 sends node 1 an answer to its heartbeat (term 2)
  node 1 receives from node 2 an answer to its heartbeat (term 2)
  node 1 receives from node 3 an answer to its heartbeat (term 2)
  node 1 sends node 3 that it needs the state at 6@2 (term 2)
  node 3 receives from node 1 that it needs the state at 6@2 (term 2)
  node 3 wants to fetch the state at 6@2 from node 1
  node 3 has done: fetch the state at 6@2 from node 1
  node 3 sends node 1 for the state at 6@2
  node 1 receives from node 3 for the state at 6@2
  node 1 sends node 3 the state at 6@2, without records
  node 3 receives from node 1 the state at 6@2, without records
  node 3 sends node 1 for records 1 to 3
  node 1 receives from node 3 for records 1 to 3
  node 1 sends node 3 3 batches of records
  node 3 receives from node 1 3 batches of records
  node 3 wants to write that it will switch to the state at 6@2 (term 2, vote for node 1, commit 3)
  node 3 has done: write that it will switch to the state at 6@2 (term 2, vote for node 1, commit 3)
  node 3 wants to switch to the state at 6@2
  node 3 has done: switch to the state at 6@2
  node 3 wants to write that it has switched to the state at 6@2 (term 2, vote for node 1, commit 6); term 2, vote for node 1, commit 6
  node 3 has done: write that it has switched to the state at 6@2 (term 2, vote for node 1, commit 6); term 2, vote for node 1, commit 6
  node 3 sends node 1 that it has everything up to 6 (term 2)
  node 1 receives from node 3 that it has everything up to 6 (term 2)
  node 1 sends node 3 no entry after 6@2, commit 6 (term 2)
  node 3 receives from node 1 no entry after 6@2, commit 6 (term 2)
  node 3 sends node 1 that it has everything up to 6 (term 2)
  node 1 receives from node 3 that it has everything up to 6 (term 2)
$ show
  node 1: Leader, term 2, log 4@2 to 6@2, committed 6, applied 6@2
  node 2: Follower, term 2, log 1@1 to 6@2, committed 6, applied 6@2
  node 3: Follower, term 2, log 6@2 to 6@2, committed 6, applied 6@2
# The switch is a sequence of durable steps: announced in the log, made and flushed in the database, confirmed in the
# log; and only then does node 3 say that it has everything.
