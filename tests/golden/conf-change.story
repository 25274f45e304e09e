# Node 4 takes the place of node 3. It joins as a learner: it gets the log and has no vote, so nothing waits for it. When
# it has caught up, one joint change (Raft §6) lets it vote and node 3 go: until that is left again, an entry is
# committed, and a leader elected, by a majority of the members before and a majority of those after.
$ quiet nodes 3
  (9 lines, hash 6770df6c)
$ quiet tick 1 20
  (2 lines, hash a088aa4a)
$ quiet settle
  (55 lines, hash cbf4f60a)
$ quiet write 1 before
  (3 lines, hash 17422ab7)
$ quiet settle
  (29 lines, hash 2cc7c8e4)
# Node 4's replica is empty: not even the group's birth is in its log, and the state that it gets tells it all.
$ join 4
  node 4 wants to write its birth at 0@0 (term 0, commit 0)
  node 4 has done: write its birth at 0@0 (term 0, commit 0)
$ members 1 -3 +4
  node 1 wants to write entries 4@2 (term 2, vote for node 1, commit 3)
  node 1 sends node 2 entry 4@2 after 3@2, commit 3 (term 2)
  node 1 sends node 3 entry 4@2 after 3@2, commit 3 (term 2)
$ settle
  node 1 has done: write entries 4@2 (term 2, vote for node 1, commit 3)
  node 2 receives from node 1 entry 4@2 after 3@2, commit 3 (term 2)
  node 2 wants to write entries 4@2 (term 2, vote for node 1, commit 3)
  node 3 receives from node 1 entry 4@2 after 3@2, commit 3 (term 2)
  node 3 wants to write entries 4@2 (term 2, vote for node 1, commit 3)
  node 2 has done: write entries 4@2 (term 2, vote for node 1, commit 3)
  node 2 sends node 1 that it has everything up to 4 (term 2)
  node 3 has done: write entries 4@2 (term 2, vote for node 1, commit 3)
  node 3 sends node 1 that it has everything up to 4 (term 2)
  node 1 receives from node 2 that it has everything up to 4 (term 2)
  node 1 wants to apply 4@2
  node 1 sends node 2 no entry after 4@2, commit 4 (term 2)
  node 1 sends node 3 no entry after 4@2, commit 4 (term 2)
  node 1 sends node 4 entry 4@2 after 3@2, commit 4 (term 2)
  node 1 receives from node 3 that it has everything up to 4 (term 2)
  node 1 has done: apply 4@2
  node 1 knows the members: 1, 2, 3 vote; 4 learns
  node 2 receives from node 1 no entry after 4@2, commit 4 (term 2)
  node 2 wants to apply 4@2
  node 2 sends node 1 that it has everything up to 4 (term 2)
  node 3 receives from node 1 no entry after 4@2, commit 4 (term 2)
  node 3 wants to apply 4@2
  node 3 sends node 1 that it has everything up to 4 (term 2)
  node 4 receives from node 1 entry 4@2 after 3@2, commit 4 (term 2)
  node 4 term 2: leader 1
  node 4 wants to write term 2, commit 0
  node 2 has done: apply 4@2
  node 2 knows the members: 1, 2, 3 vote; 4 learns
  node 3 has done: apply 4@2
  node 3 knows the members: 1, 2, 3 vote; 4 learns
  node 4 has done: write term 2, commit 0
  node 4 sends node 1 that it has everything up to 3, refused (term 2)
  node 1 receives from node 2 that it has everything up to 4 (term 2)
  node 1 receives from node 3 that it has everything up to 4 (term 2)
  node 1 receives from node 4 that it has everything up to 3, refused (term 2)
  node 1 wants to take its state for others
  node 1 has done: take its state for others
# Node 4 is a learner and has refused entry 4, because it lacks all before it. Those are not sent: from entry 1 on, a log
# would miss the members that the group was born with. Node 1 offers its state.
$ tick 1 3
  node 1 sends node 2 a heartbeat, commit 4 (term 2)
  node 1 sends node 3 a heartbeat, commit 4 (term 2)
  node 1 sends node 4 a heartbeat, commit 0 (term 2)
$ settle
  node 2 receives from node 1 a heartbeat, commit 4 (term 2)
  node 2 sends node 1 an answer to its heartbeat (term 2)
  node 3 receives from node 1 a heartbeat, commit 4 (term 2)
  node 3 sends node 1 an answer to its heartbeat (term 2)
  node 4 receives from node 1 a heartbeat, commit 0 (term 2)
  node 4 sends node 1 an answer to its heartbeat (term 2)
  node 1 receives from node 2 an answer to its heartbeat (term 2)
  node 1 receives from node 3 an answer to its heartbeat (term 2)
  node 1 receives from node 4 an answer to its heartbeat (term 2)
  node 1 sends node 4 that it needs the state at 4@2 (term 2)
  node 4 receives from node 1 that it needs the state at 4@2 (term 2)
  node 4 wants to fetch the state at 4@2 from node 1
  node 4 has done: fetch the state at 4@2 from node 1
  node 4 sends node 1 for the state at 4@2
  node 1 receives from node 4 for the state at 4@2
  node 1 sends node 4 the state at 4@2, without records
  node 4 receives from node 1 the state at 4@2, without records
  node 4 sends node 1 for records 0 to 0
  node 1 receives from node 4 for records 0 to 0
  node 1 sends node 4 1 batches of records
  node 4 receives from node 1 1 batches of records
  node 4 wants to write that it will switch to the state at 4@2 (term 2, commit 0)
  node 4 has done: write that it will switch to the state at 4@2 (term 2, commit 0)
  node 4 wants to switch to the state at 4@2
  node 4 has done: switch to the state at 4@2
  node 4 wants to write that it has switched to the state at 4@2 (term 2, commit 4); term 2, commit 4
  node 4 has done: write that it has switched to the state at 4@2 (term 2, commit 4); term 2, commit 4
  node 4 sends node 1 that it has everything up to 4 (term 2)
  node 1 receives from node 4 that it has everything up to 4 (term 2)
  node 1 sends node 4 no entry after 4@2, commit 4 (term 2)
  node 4 receives from node 1 no entry after 4@2, commit 4 (term 2)
  node 4 sends node 1 that it has everything up to 4 (term 2)
  node 1 receives from node 4 that it has everything up to 4 (term 2)
$ tick 1 3
  node 1 sends node 2 a heartbeat, commit 4 (term 2)
  node 1 sends node 3 a heartbeat, commit 4 (term 2)
  node 1 sends node 4 a heartbeat, commit 4 (term 2)
$ settle
  node 2 receives from node 1 a heartbeat, commit 4 (term 2)
  node 2 sends node 1 an answer to its heartbeat (term 2)
  node 3 receives from node 1 a heartbeat, commit 4 (term 2)
  node 3 sends node 1 an answer to its heartbeat (term 2)
  node 4 receives from node 1 a heartbeat, commit 4 (term 2)
  node 4 sends node 1 an answer to its heartbeat (term 2)
  node 1 receives from node 2 an answer to its heartbeat (term 2)
  node 1 receives from node 3 an answer to its heartbeat (term 2)
  node 1 receives from node 4 an answer to its heartbeat (term 2)
$ show
  node 1: Leader, term 2, log 1@1 to 4@2, committed 4, applied 4@2
  node 2: Follower, term 2, log 1@1 to 4@2, committed 4, applied 4@2
  node 3: Follower, term 2, log 1@1 to 4@2, committed 4, applied 4@2
  node 4: Follower, term 2, log 4@2 to 4@2, committed 4, applied 4@2
# It has everything. The next step is the joint change.
$ members 1 -3 +4
  node 1 wants to write entries 5@2 (term 2, vote for node 1, commit 4)
  node 1 sends node 2 entry 5@2 after 4@2, commit 4 (term 2)
  node 1 sends node 3 entry 5@2 after 4@2, commit 4 (term 2)
  node 1 sends node 4 entry 5@2 after 4@2, commit 4 (term 2)
$ disk 1
  node 1 has done: write entries 5@2 (term 2, vote for node 1, commit 4)
$ deliver 1 2
  node 2 receives from node 1 entry 5@2 after 4@2, commit 4 (term 2)
  node 2 wants to write entries 5@2 (term 2, vote for node 1, commit 4)
$ disk 2
  node 2 has done: write entries 5@2 (term 2, vote for node 1, commit 4)
  node 2 sends node 1 that it has everything up to 5 (term 2)
$ deliver 2 1
  node 1 receives from node 2 that it has everything up to 5 (term 2)
  node 1 wants to apply 5@2
  node 1 wants to write entries 6@2 (term 2, vote for node 1, commit 5)
  node 1 sends node 2 no entry after 5@2, commit 5 (term 2)
  node 1 sends node 3 no entry after 5@2, commit 5 (term 2)
# The change is committed by the members before it, and node 1 at once writes entry 6, which ends the joint members. To
# commit that one, node 1 waits for a majority of nodes 1, 2 and 3, and for one of nodes 1, 2 and 4.
$ settle
  node 1 has done: apply 5@2
  node 1 knows the members: 1, 2, 4 vote, and so do 1, 2, 3, each side for itself
  node 2 receives from node 1 no entry after 5@2, commit 5 (term 2)
  node 2 wants to apply 5@2
  node 2 sends node 1 that it has everything up to 5 (term 2)
  node 3 receives from node 1 entry 5@2 after 4@2, commit 4 (term 2)
  node 3 wants to write entries 5@2 (term 2, vote for node 1, commit 4)
  node 4 receives from node 1 entry 5@2 after 4@2, commit 4 (term 2)
  node 4 wants to write entries 5@2 (term 2, commit 4)
  node 1 has done: write entries 6@2 (term 2, vote for node 1, commit 5)
  node 2 has done: apply 5@2
  node 2 knows the members: 1, 2, 4 vote, and so do 1, 2, 3, each side for itself
  node 3 has done: write entries 5@2 (term 2, vote for node 1, commit 4)
  node 3 sends node 1 that it has everything up to 5 (term 2)
  node 4 has done: write entries 5@2 (term 2, commit 4)
  node 4 sends node 1 that it has everything up to 5 (term 2)
  node 3 receives from node 1 no entry after 5@2, commit 5 (term 2)
  node 3 wants to apply 5@2
  node 3 sends node 1 that it has everything up to 5 (term 2)
  node 1 receives from node 2 that it has everything up to 5 (term 2)
  node 1 receives from node 3 that it has everything up to 5 (term 2)
  node 1 sends node 3 entry 6@2 after 5@2, commit 5 (term 2)
  node 1 receives from node 4 that it has everything up to 5 (term 2)
  node 1 sends node 4 entry 6@2 after 5@2, commit 5 (term 2)
  node 3 has done: apply 5@2
  node 3 knows the members: 1, 2, 4 vote, and so do 1, 2, 3, each side for itself
  node 3 receives from node 1 entry 6@2 after 5@2, commit 5 (term 2)
  node 3 wants to write entries 6@2 (term 2, vote for node 1, commit 5)
  node 4 receives from node 1 entry 6@2 after 5@2, commit 5 (term 2)
  node 4 wants to apply 5@2
  node 4 wants to write entries 6@2 (term 2, commit 5)
  node 1 receives from node 3 that it has everything up to 5 (term 2)
  node 3 has done: write entries 6@2 (term 2, vote for node 1, commit 5)
  node 3 sends node 1 that it has everything up to 6 (term 2)
  node 4 has done: apply 5@2
  node 4 knows the members: 1, 2, 4 vote, and so do 1, 2, 3, each side for itself
  node 1 receives from node 3 that it has everything up to 6 (term 2)
  node 4 has done: write entries 6@2 (term 2, commit 5)
  node 4 sends node 1 that it has everything up to 6 (term 2)
  node 1 receives from node 4 that it has everything up to 6 (term 2)
  node 1 wants to apply 6@2
  node 1 sends node 2 entry 6@2 after 5@2, commit 6 (term 2)
  node 1 sends node 3 no entry after 6@2, commit 6 (term 2)
  node 1 sends node 4 no entry after 6@2, commit 6 (term 2)
  node 1 has done: apply 6@2
  node 1 knows the members: 1, 2, 4 vote
  node 2 receives from node 1 entry 6@2 after 5@2, commit 6 (term 2)
  node 2 wants to write entries 6@2 (term 2, vote for node 1, commit 6)
  node 3 receives from node 1 no entry after 6@2, commit 6 (term 2)
  node 3 wants to apply 6@2
  node 3 sends node 1 that it has everything up to 6 (term 2)
  node 4 receives from node 1 no entry after 6@2, commit 6 (term 2)
  node 4 wants to apply 6@2
  node 4 sends node 1 that it has everything up to 6 (term 2)
  node 2 has done: write entries 6@2 (term 2, vote for node 1, commit 6)
  node 2 wants to apply 6@2
  node 2 sends node 1 that it has everything up to 6 (term 2)
  node 3 has done: apply 6@2
  node 3 knows the members: 1, 2, 4 vote
  node 4 has done: apply 6@2
  node 4 knows the members: 1, 2, 4 vote
  node 1 receives from node 2 that it has everything up to 6 (term 2)
  node 1 receives from node 3 that it has everything up to 6 (term 2)
  node 1 receives from node 4 that it has everything up to 6 (term 2)
  node 2 has done: apply 6@2
  node 2 knows the members: 1, 2, 4 vote
# What is written now needs a majority of nodes 1, 2 and 4. Node 3 is told nothing more.
$ write 1 after
  node 1 wants to write entries 7@2 (term 2, vote for node 1, commit 6)
  node 1 sends node 2 entry 7@2 after 6@2, commit 6 (term 2)
  node 1 sends node 4 entry 7@2 after 6@2, commit 6 (term 2)
$ settle
  node 1 has done: write entries 7@2 (term 2, vote for node 1, commit 6)
  node 2 receives from node 1 entry 7@2 after 6@2, commit 6 (term 2)
  node 2 wants to write entries 7@2 (term 2, vote for node 1, commit 6)
  node 4 receives from node 1 entry 7@2 after 6@2, commit 6 (term 2)
  node 4 wants to write entries 7@2 (term 2, commit 6)
  node 2 has done: write entries 7@2 (term 2, vote for node 1, commit 6)
  node 2 sends node 1 that it has everything up to 7 (term 2)
  node 4 has done: write entries 7@2 (term 2, commit 6)
  node 4 sends node 1 that it has everything up to 7 (term 2)
  node 1 receives from node 2 that it has everything up to 7 (term 2)
  node 1 wants to apply 7@2
  node 1 sends node 2 no entry after 7@2, commit 7 (term 2)
  node 1 sends node 4 no entry after 7@2, commit 7 (term 2)
  node 1 receives from node 4 that it has everything up to 7 (term 2)
  node 1 has done: apply 7@2
  node 1 entry 7@2 is the record at offset 1
  node 1 answers: Applied { at: LogId { index: LogIndex(7), term: Term(2) }, outcome: Appended { base_offset: Offset(1), duplicate: false } }
  node 2 receives from node 1 no entry after 7@2, commit 7 (term 2)
  node 2 wants to apply 7@2
  node 2 sends node 1 that it has everything up to 7 (term 2)
  node 4 receives from node 1 no entry after 7@2, commit 7 (term 2)
  node 4 wants to apply 7@2
  node 4 sends node 1 that it has everything up to 7 (term 2)
  node 2 has done: apply 7@2
  node 2 entry 7@2 is the record at offset 1
  node 4 has done: apply 7@2
  node 4 entry 7@2 is the record at offset 1
  node 1 receives from node 2 that it has everything up to 7 (term 2)
  node 1 receives from node 4 that it has everything up to 7 (term 2)
$ show
  node 1: Leader, term 2, log 1@1 to 7@2, committed 7, applied 7@2
  node 2: Follower, term 2, log 1@1 to 7@2, committed 7, applied 7@2
  node 3: Follower, term 2, log 1@1 to 6@2, committed 6, applied 6@2
  node 4: Follower, term 2, log 4@2 to 7@2, committed 7, applied 7@2
# Another step would change nothing.
$ members 1 -3 +4
