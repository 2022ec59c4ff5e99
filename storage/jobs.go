package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// The states of a job. A job is unfinished while ready or running; what a worker says with FinishJob is done, failed or retry.
const (
	JobReady     = "ready"
	JobRunning   = "running"
	JobDone      = "done"
	JobFailed    = "failed"
	JobCancelled = "cancelled"
	JobRetry     = "retry" // only an argument of FinishJob: ready again later, or failed after the last attempt
)

const jobColumns = "id, kind, queue, unique_key, args, state, run_at, attempt, max_attempts, worker, lease_until, result, error, node_id, created, finished"

func scanJob(s scanner) (j Job, err error) {
	err = s.Scan(&j.ID, &j.Kind, &j.Queue, &j.UniqueKey, scanJSON(&j.Args), &j.State, scanTime(&j.RunAt), &j.Attempt, &j.MaxAttempts,
		&j.Worker, scanTime(&j.LeaseUntil), scanJSON(&j.Result), &j.Error, &j.NodeID, scanTime(&j.Created), scanTime(&j.Finished))
	return j, err
}

// EnqueueJob adds work. Kind and Queue are required; RunAt defaults to now, MaxAttempts to 3. When an unfinished job has the same
// UniqueKey, that one is returned and nothing is added.
func (tx *Tx) EnqueueJob(j Job) (Job, error) {
	if j.Kind == "" || j.Queue == "" {
		return j, errors.New("storage: a job needs a kind and a queue")
	}
	j.State, j.Attempt, j.Worker, j.LeaseUntil, j.Finished, j.Error = JobReady, 0, "", time.Time{}, time.Time{}, ""
	if j.RunAt.IsZero() {
		j.RunAt = tx.Now()
	}
	if j.MaxAttempts <= 0 {
		j.MaxAttempts = 3
	}
	if len(j.Args) == 0 {
		j.Args = json.RawMessage("{}")
	}
	j.Result = json.RawMessage("{}")
	j.Created = tx.Now()
	id, err := tx.insert(`insert into jobs (kind, queue, unique_key, args, state, run_at, attempt, max_attempts, worker, lease_until, result, error, node_id, created, finished)
		values ($1, $2, $3, $4, 'ready', $5, 0, $6, '', 0, '{}', '', $7, $8, 0)
		on conflict (unique_key) where unique_key is not null and state in ('ready', 'running') do nothing returning id`,
		j.Kind, j.Queue, j.UniqueKey, j.Args, j.RunAt, j.MaxAttempts, j.NodeID, j.Created)
	switch {
	case errors.Is(err, ErrNotFound):
		return row(tx, scanJob, "select "+jobColumns+" from jobs where unique_key = $1 and state in ('ready', 'running')", j.UniqueKey)
	case err != nil:
		return j, err
	}
	j.ID = id
	return j, nil
}

// ClaimJobs leases up to limit due jobs of the queues to a worker, the longest due first. A running job whose lease is over
// is claimed again, with the next attempt number; one that used up its attempts fails instead. The attempt of the
// returned job is its fencing number: only its holder can heartbeat and finish it.
func (tx *Tx) ClaimJobs(queues []string, worker string, limit int, lease time.Duration) ([]Job, error) {
	if len(queues) == 0 || limit <= 0 {
		return nil, nil
	}
	if lease <= 0 {
		return nil, errors.New("storage: a lease needs a length")
	}
	now := tx.Now()
	w := tx.where().in("queue", queues).and("state in ('ready', 'running')").
		and("((state = 'ready' and run_at <= ?) or (state = 'running' and lease_until < ?))", now, now)
	due, err := list(tx, scanJob, fmt.Sprintf("select %s from jobs%s order by run_at, id limit %d%s", jobColumns, w.sql(), limit, tx.claim()), w.args...)
	if err != nil {
		return nil, err
	}
	var claimed []Job
	for _, j := range due {
		if j.State == JobRunning && j.Attempt >= j.MaxAttempts {
			if _, err := tx.Exec(`update jobs set state = 'failed', lease_until = 0, finished = $1, error = $2 where id = $3 and attempt = $4`,
				now, "the worker was lost at the last attempt", j.ID, j.Attempt); err != nil {
				return nil, err
			}
			continue
		}
		if err := tx.guarded(`update jobs set state = 'running', attempt = attempt + 1, worker = $1, lease_until = $2 where id = $3 and attempt = $4 and state = $5`,
			worker, now.Add(lease), j.ID, j.Attempt, j.State); err != nil {
			return nil, err
		}
		j.State, j.Worker, j.LeaseUntil = JobRunning, worker, now.Add(lease)
		j.Attempt++
		claimed = append(claimed, j)
	}
	return claimed, nil
}

// LostJobs lists the running jobs that ClaimJobs would fail: their lease is over and no attempt is left. Whoever must act on such
// an end (set a node's power state, say) finishes them with FinishJob before the next claim does.
func (tx *Tx) LostJobs() ([]Job, error) {
	return list(tx, scanJob, "select "+jobColumns+" from jobs where state = 'running' and lease_until < $1 and attempt >= max_attempts order by id", tx.Now())
}

// HeartbeatJob extends the lease of an attempt; ErrStale when it is no longer that attempt's.
func (tx *Tx) HeartbeatJob(id, attempt int64, lease time.Duration) error {
	return tx.guarded("update jobs set lease_until = $1 where id = $2 and attempt = $3 and state = 'running'", tx.Now().Add(lease), id, attempt)
}

// FinishJob records the end of an attempt: state is JobDone, JobFailed or JobRetry. Retry makes the job ready again after a growing,
// jittered pause, or failed when the attempts are used up. ErrStale when the job is no longer that attempt's: somebody else
// has it, or it was cancelled. The returned job is as stored.
func (tx *Tx) FinishJob(id, attempt int64, state string, result json.RawMessage, errText string) (Job, error) {
	j, err := row(tx, scanJob, "select "+jobColumns+" from jobs where id = $1", id)
	if errors.Is(err, ErrNotFound) {
		return j, ErrStale
	}
	if err != nil {
		return j, err
	}
	now := tx.Now()
	j.Result, j.Error, j.LeaseUntil = json.RawMessage(jsonArg(result, "{}")), errText, time.Time{}
	switch state {
	case JobDone, JobFailed:
		j.State, j.Finished = state, now
	case JobRetry:
		if j.State, j.RunAt = JobReady, now.Add(jobBackoff(attempt)); attempt >= j.MaxAttempts {
			j.State, j.Finished = JobFailed, now
		}
	default:
		return j, fmt.Errorf("storage: a job cannot finish as %q", state)
	}
	return j, tx.guarded(`update jobs set state = $1, run_at = $2, lease_until = 0, result = $3, error = $4, finished = $5
		where id = $6 and attempt = $7 and state = 'running'`, j.State, j.RunAt, j.Result, j.Error, j.Finished, id, attempt)
}

// jobBackoff is the pause after a failed attempt: 2 s, 4 s, 8 s … five minutes, each up to half longer.
func jobBackoff(attempt int64) time.Duration {
	d := min(time.Second<<min(max(attempt, 1), 10), 5*time.Minute)
	return d + rand.N(d/2)
}

// CancelJobs ends the unfinished jobs of a node, of one kind or of all when kind is empty; what still runs finds its
// number stale. It answers how many there were.
func (tx *Tx) CancelJobs(nodeID int64, kind string) (int64, error) {
	w := tx.where(tx.Now()).and("node_id = ?", nodeID).and("state in ('ready', 'running')")
	if kind != "" {
		w.and("kind = ?", kind)
	}
	return tx.Exec("update jobs set state = 'cancelled', lease_until = 0, finished = $1"+w.sql(), w.args...)
}

// CancelJobsOfKind ends the unfinished jobs of a kind, as CancelJobs does those of a node.
func (tx *Tx) CancelJobsOfKind(kind string) (int64, error) {
	return tx.Exec("update jobs set state = 'cancelled', lease_until = 0, finished = $1 where kind = $2 and state in ('ready', 'running')", tx.Now(), kind)
}

// Job reads one job.
func (tx *Tx) Job(id int64) (Job, error) {
	return row(tx, scanJob, "select "+jobColumns+" from jobs where id = $1", id)
}

// JobFilter narrows Jobs; zero fields do not.
type JobFilter struct {
	NodeID *int64
	Kind   string
	States []string
	Queues []string
	Limit  int // newest first when set
}

// Jobs lists jobs, the newest first.
func (tx *Tx) Jobs(f JobFilter) ([]Job, error) {
	w := tx.where().in("state", f.States).in("queue", f.Queues)
	if f.NodeID != nil {
		w.and("node_id = ?", *f.NodeID)
	}
	if f.Kind != "" {
		w.and("kind = ?", f.Kind)
	}
	q := "select " + jobColumns + " from jobs" + w.sql() + " order by id desc"
	if f.Limit > 0 {
		q += fmt.Sprintf(" limit %d", f.Limit)
	}
	return list(tx, scanJob, q, w.args...)
}

// PurgeJobs deletes jobs that finished before a time.
func (tx *Tx) PurgeJobs(before time.Time) (int64, error) {
	return tx.Exec("delete from jobs where state in ('done', 'failed', 'cancelled') and finished < $1", before)
}
