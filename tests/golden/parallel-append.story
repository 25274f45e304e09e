# A produce. The leader's append leaves for the followers at once, beside its own write (Raft thesis 10.2.1): the entry
# is committed when a majority has it on its disks, and the leader's own need not be among them.
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
$ show
  node 1: Leader, term 2, log 1@1 to 2@2, committed 2, applied 2@2
  node 2: Follower, term 2, log 1@1 to 2@2, committed 2, applied 2@2
  node 3: Follower, term 2, log 1@1 to 2@2, committed 2, applied 2@2
$ write 1 hello
  node 1 wants to write entries 3@2 (term 2, vote for node 1, commit 2)
  node 1 sends node 2 entry 3@2 after 2@2, commit 2 (term 2)
  node 1 sends node 3 entry 3@2 after 2@2, commit 2 (term 2)
$ deliver 1 2
  node 2 receives from node 1 entry 3@2 after 2@2, commit 2 (term 2)
  node 2 wants to write entries 3@2 (term 2, vote for node 1, commit 2)
$ deliver 1 3
  node 3 receives from node 1 entry 3@2 after 2@2, commit 2 (term 2)
  node 3 wants to write entries 3@2 (term 2, vote for node 1, commit 2)
$ disk 2
  node 2 has done: write entries 3@2 (term 2, vote for node 1, commit 2)
  node 2 sends node 1 that it has everything up to 3 (term 2)
$ disk 3
  node 3 has done: write entries 3@2 (term 2, vote for node 1, commit 2)
  node 3 sends node 1 that it has everything up to 3 (term 2)
$ deliver 2 1
  node 1 receives from node 2 that it has everything up to 3 (term 2)
$ deliver 3 1
  node 1 receives from node 3 that it has everything up to 3 (term 2)
  node 1 sends node 2 no entry after 3@2, commit 3 (term 2)
  node 1 sends node 3 no entry after 3@2, commit 3 (term 2)
# Two followers have it, but this leader counts itself: it hands over only what is on its own disk, too.
$ disk 1
  node 1 has done: write entries 3@2 (term 2, vote for node 1, commit 2)
  node 1 wants to apply 3@2
$ apply 1
  node 1 has done: apply 3@2
  node 1 entry 3@2 is the record at offset 0
  node 1 answers: Applied { at: LogId { index: LogIndex(3), term: Term(2) }, outcome: Appended { base_offset: Offset(0), duplicate: false } }
$ settle
  node 2 receives from node 1 no entry after 3@2, commit 3 (term 2)
  node 2 wants to apply 3@2
  node 2 sends node 1 that it has everything up to 3 (term 2)
  node 3 receives from node 1 no entry after 3@2, commit 3 (term 2)
  node 3 wants to apply 3@2
  node 3 sends node 1 that it has everything up to 3 (term 2)
  node 2 has done: apply 3@2
  node 2 entry 3@2 is the record at offset 0
  node 3 has done: apply 3@2
  node 3 entry 3@2 is the record at offset 0
  node 1 receives from node 2 that it has everything up to 3 (term 2)
  node 1 receives from node 3 that it has everything up to 3 (term 2)
$ show
  node 1: Leader, term 2, log 1@1 to 3@2, committed 3, applied 3@2
  node 2: Follower, term 2, log 1@1 to 3@2, committed 3, applied 3@2
  node 3: Follower, term 2, log 1@1 to 3@2, committed 3, applied 3@2
