// A member of a consumer group: kafkajs. Options and events are those of ../events.py; it commits after every batch.

import process from 'node:process'
import kafkajs from 'kafkajs'

const { Kafka, logLevel, AssignerProtocol } = kafkajs
const [bootstrap, group, topic, given] = process.argv.slice(2)
const options = { session_ms: 6000, heartbeat_ms: 1000, style: 'default', metadata: '', ...JSON.parse(given) }

function say(event, fields = {}) {
  process.stdout.write(JSON.stringify({ t: Date.now() / 1000, event, ...fields }) + '\n')
}

// kafkajs brings no range assignor, but takes one: contiguous shares, as all other clients deal them out.
const range = ({ cluster }) => ({
  name: 'range',
  version: 0,
  async assign({ members, topics }) {
    const ids = members.map(({ memberId }) => memberId).sort()
    const shares = new Map(ids.map(id => [id, {}]))
    for (const name of topics) {
      const partitions = cluster.findTopicPartitionMetadata(name).map(p => p.partitionId).sort((a, b) => a - b)
      const [each, more] = [Math.floor(partitions.length / ids.length), partitions.length % ids.length]
      ids.forEach((id, at) => {
        const first = each * at + Math.min(at, more)
        shares.get(id)[name] = partitions.slice(first, first + each + (at < more ? 1 : 0))
      })
    }
    return ids.map(memberId => ({
      memberId,
      memberAssignment: AssignerProtocol.MemberAssignment.encode({ version: 0, assignment: shares.get(memberId) }),
    }))
  },
  protocol({ topics }) {
    return { name: 'range', metadata: AssignerProtocol.MemberMetadata.encode({ version: 0, topics }) }
  },
})

const kafka = new Kafka({
  brokers: bootstrap.split(','),
  logLevel: logLevel.WARN,
  logCreator: () => ({ namespace, log }) => process.stderr.write(`${namespace} ${JSON.stringify(log)}\n`),
})
const consumer = kafka.consumer({
  groupId: group,
  sessionTimeout: options.session_ms,
  heartbeatInterval: options.heartbeat_ms,
  maxWaitTimeInMs: 500,
  ...(options.style === 'range' ? { partitionAssigners: [range] } : {}),
})

let owned = []
let stale = false
function give(event) {
  if (owned.length) say(event, { partitions: owned })
  owned = []
}
consumer.on(consumer.events.REBALANCING, () => give('revoked'))
consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
  give('revoked')
  owned = payload.memberAssignment[topic] ?? []
  say('assigned', { partitions: owned })
})
consumer.on(consumer.events.CRASH, ({ payload }) => {
  give('lost')
  say('error', { text: `${payload.error.name}: ${payload.error.message}, restarts: ${payload.restart}` })
})

async function show() {
  const admin = kafka.admin()
  await admin.connect()
  for (const { partitions } of await admin.fetchOffsets({ groupId: group, topics: [topic] })) {
    for (const { partition, offset, metadata } of partitions) say('found', { partition, found: [+offset, metadata, -1] })
  }
  await admin.disconnect()
}

async function eachBatch({ batch, resolveOffset, commitOffsetsIfNecessary, heartbeat, isRunning, isStale }) {
  let next = null
  for (const { offset, value } of batch.messages) {
    if (!isRunning() || isStale()) break
    say('record', { partition: batch.partition, offset: Number(offset), value: value.toString() })
    resolveOffset(offset)
    next = Number(offset) + 1
  }
  if (next === null) return
  const offsets = { [batch.partition]: next }
  try {
    // Not consumer.commitOffsets: that one repeats itself before a coordinator that has moved, and asks nobody where
    // to, until the member's session is over (tulios/kafkajs#1779). This one fails at once, and the consumer rejoins.
    const partitions = [{ partition: batch.partition, offset: String(next), metadata: options.metadata }]
    await commitOffsetsIfNecessary({ topics: [{ topic, partitions }] })
    say('committed', { offsets })
  } catch (error) {
    say('failed', { offsets, text: `${error.name}: ${error.message}` })
    throw error
  }
  await heartbeat()
}

process.on('SIGTERM', async () => {
  if (stale) return
  stale = true
  await consumer.disconnect()
  give('revoked')
  say('ended')
  process.exit(0)
})

if (options.show) await show()
await consumer.connect()
await consumer.subscribe({ topics: [topic], fromBeginning: true })
await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch })
