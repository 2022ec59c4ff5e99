package bootsrv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/power"
)

// executor carries out the region's jobs: it claims them, keeps their leases alive, and posts what came of them. It never works on
// one machine twice at a time: a newer order ends the older one, for the region has called that off.
type executor struct {
	link    func() *link
	drivers map[string]power.Driver
	opts    power.Options
	slots   int
	ready   func(ctx context.Context, revision int64) error // the snapshot is as new
	max     time.Duration
	log     *slog.Logger
	scanner func() (*scanner, error) // nil: the kernel's
	// images fetches all content that the snapshot names.
	images func(ctx context.Context) api.ImagesResult

	mu      sync.Mutex
	current map[string]*running // by machine
	wg      sync.WaitGroup
	free    chan struct{}
}

type running struct {
	cancel context.CancelFunc
	done   chan struct{}
}

const (
	claimWait = 25 * time.Second
	// resultTries is how long a result is offered to a region that cannot be reached. A lease is long over by then.
	resultTries = 10 * time.Minute
	// drainTime is what running jobs get at the end.
	drainTime = 5 * time.Second
)

// run claims and works until the context ends; then it claims no more and gives what runs a moment.
func (e *executor) run(ctx context.Context) error {
	e.current = map[string]*running{}
	e.free = make(chan struct{}, e.slots)
	for range e.slots {
		e.free <- struct{}{}
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	b := backoff{max: e.max}
	for ctx.Err() == nil {
		n := e.take(ctx)
		if n == 0 {
			break
		}
		jobs, err := e.link().claim(ctx, n, claimWait)
		if err != nil {
			e.give(n)
			if ctx.Err() == nil {
				e.log.Debug("no jobs claimed", "error", err)
				_ = b.wait(ctx)
			}
			continue
		}
		b.reset()
		e.give(max(n-len(jobs.Jobs), 0))
		for _, j := range jobs.Jobs {
			e.start(work, j, jobs.Revision)
		}
	}
	done := make(chan struct{})
	go func() { e.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(drainTime):
		cancel()
		<-done
	}
	return ctx.Err()
}

// take waits for a free slot and takes all that are free.
func (e *executor) take(ctx context.Context) int {
	select {
	case <-ctx.Done():
		return 0
	case <-e.free:
	}
	n := 1
	for {
		select {
		case <-e.free:
			n++
		default:
			return n
		}
	}
}

func (e *executor) give(n int) {
	for range n {
		e.free <- struct{}{}
	}
}

// start runs a job beside the others, after the older one of the same machine has ended.
func (e *executor) start(ctx context.Context, j api.RackJob, revision int64) {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{cancel: cancel, done: make(chan struct{})}
	machine := fmt.Sprintf("job %d", j.ID)
	if j.Power != nil {
		machine = j.Power.SystemID
	}
	e.mu.Lock()
	older := e.current[machine]
	e.current[machine] = r
	e.mu.Unlock()
	e.wg.Go(func() {
		defer e.give(1)
		defer func() {
			e.mu.Lock()
			if e.current[machine] == r {
				delete(e.current, machine)
			}
			e.mu.Unlock()
			close(r.done)
			cancel()
		}()
		if older != nil {
			older.cancel()
			<-older.done
		}
		e.work(ctx, cancel, j, revision)
	})
}

// work does one attempt. The lease is kept alive beside it; when it is lost, the work ends and nothing is posted.
func (e *executor) work(ctx context.Context, cancel context.CancelFunc, j api.RackJob, revision int64) {
	begin := time.Now()
	lease := time.Duration(j.LeaseSeconds) * time.Second
	beat := make(chan struct{})
	hctx, stop := context.WithCancel(ctx)
	lost := false
	go func() {
		defer close(beat)
		lost = e.keep(hctx, cancel, j, lease)
	}()
	res := e.attempt(ctx, j, revision)
	stop()
	<-beat
	args := []any{"job", j.ID, "attempt", j.Attempt, "kind", j.Kind, "duration", time.Since(begin).Round(time.Millisecond)}
	if j.Power != nil {
		args = append(args, "system_id", j.Power.SystemID, "action", j.Power.Action, "driver", j.Power.Driver)
	}
	if lost || ctx.Err() != nil {
		e.log.Info("job dropped", append(args, "lease_lost", lost)...)
		return
	}
	switch {
	case res.Power != nil:
		args = append(args, "state", res.Power.State, "error", res.Power.Error)
	case res.Scan != nil:
		args = append(args, "neighbours", len(res.Scan.Neighbours), "error", res.Scan.Error)
	case res.Images != nil:
		args = append(args, "fetched", res.Images.Fetched, "error", res.Images.Error)
	}
	if err := e.deliver(ctx, j, res); err != nil {
		e.log.Warn("job result not taken", append(args, "reason", err)...)
		return
	}
	e.log.Info("job done", args...)
}

// keep prolongs the lease until the context ends, and says whether it was lost: the region said so, or could not be asked in time.
func (e *executor) keep(ctx context.Context, cancel context.CancelFunc, j api.RackJob, lease time.Duration) bool {
	until := time.Now().Add(lease)
	for {
		// A third of the lease, but soon again after a failure.
		if pause(ctx, min(lease/3, max(time.Until(until)/3, 100*time.Millisecond))) != nil {
			return false
		}
		begin := time.Now()
		d, err := e.link().heartbeat(ctx, j.ID, j.Attempt)
		switch {
		case ctx.Err() != nil:
			return false
		case err == nil:
			until = begin.Add(d)
		case refused(err, 409), refused(err, 404):
			cancel()
			return true
		case time.Now().After(until):
			// The region is away. Nobody else can claim the job while it is: go on, and let it judge the result by the attempt.
			e.log.Debug("lease cannot be prolonged", "job", j.ID, "error", err)
			until = time.Now().Add(lease)
		}
	}
}

// deliver posts a result until the region takes or refuses it.
func (e *executor) deliver(ctx context.Context, j api.RackJob, res api.JobResult) error {
	ctx, cancel := context.WithTimeout(ctx, resultTries)
	defer cancel()
	b := backoff{max: e.max}
	for {
		err := e.link().result(ctx, j.ID, res)
		var le *linkError
		if err == nil || errors.As(err, &le) && le.Status < 500 && le.Status != 429 && le.Status != 401 {
			return err
		}
		if b.wait(ctx) != nil {
			return err
		}
	}
}

// attempt carries out a job, whatever its kind.
func (e *executor) attempt(ctx context.Context, j api.RackJob, revision int64) api.JobResult {
	if j.Kind == api.JobScan && j.Scan != nil {
		r := api.ScanResult{Neighbours: []api.NeighbourReport{}}
		open := e.scanner
		if open == nil {
			open = kernelScanner
		}
		s, err := open()
		if err == nil {
			defer s.close()
			var seen []api.NeighbourReport
			seen, err = scan(ctx, s, j.Scan.CIDRs)
			r.Neighbours = append(r.Neighbours, seen...)
		}
		if err != nil {
			r.Error = err.Error()
		}
		return api.JobResult{Attempt: j.Attempt, Scan: &r}
	}
	if j.Kind == api.JobImages && j.Images != nil && e.images != nil {
		var r api.ImagesResult
		if err := e.ready(ctx, revision); err != nil {
			r.Error = err.Error()
		} else {
			r = e.images(ctx)
		}
		return api.JobResult{Attempt: j.Attempt, Images: &r}
	}
	r := e.power(ctx, j, revision)
	return api.JobResult{Attempt: j.Attempt, Power: &r}
}

// power carries out a power order.
func (e *executor) power(ctx context.Context, j api.RackJob, revision int64) api.PowerResult {
	o := j.Power
	if j.Kind != api.JobPower || o == nil {
		return api.PowerResult{State: string(power.Unknown), Error: fmt.Sprintf("this rack knows no jobs of kind %q", j.Kind), Final: true}
	}
	d, ok := e.drivers[o.Driver]
	if !ok {
		err := &power.Error{Kind: power.ErrSetting, Text: fmt.Sprintf("this rack has no power driver %q", o.Driver)}
		return api.PowerResult{State: string(power.Unknown), Error: err.Error(), Final: true}
	}
	limit := time.Duration(o.TimeoutSeconds) * time.Second
	if limit <= 0 {
		limit = 5 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if a := power.Action(o.Action); a == power.ActionOn || a == power.ActionCycle {
		// The machine must not boot before the news of what it is to boot is here.
		wctx, done := context.WithTimeout(ctx, 10*time.Second)
		if err := e.ready(wctx, revision); err != nil {
			e.log.Warn("machine is switched on with an older snapshot", "job", j.ID, "system_id", o.SystemID, "revision", revision)
		}
		done()
	}
	st, err := power.Do(ctx, d, power.Action(o.Action), o.Parameters, e.opts)
	res := api.PowerResult{State: string(st)}
	if err != nil {
		pe := power.AsError(err, d.Describe(), o.Parameters)
		res.Error, res.Final = pe.Error(), pe.Fatal()
	}
	return res
}
