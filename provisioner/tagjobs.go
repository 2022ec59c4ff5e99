package provisioner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/provisioner/jobs"
	"github.com/ingot-metal/ingot/provisioner/tagdef"
	"github.com/ingot-metal/ingot/storage"
)

const (
	tagJob = "tag"
	// tagBatch nodes are looked at and tagged in one step: a transaction of the only writer stays short.
	tagBatch = 500
	// tagJobLimit bounds a whole job, and tagTooMuch how many documents may ask for too much work before a definition counts as one that does.
	tagJobLimit = 5 * time.Minute
	tagTooMuch  = 20
	// tagNodeLimit bounds the evaluation of all tags for one machine that has been commissioned.
	tagNodeLimit = 5 * time.Second
)

type tagArgs struct {
	TagID      int64  `json:"tag_id"`
	Definition string `json:"definition"`
}

// JobHandlers are the jobs of the queue "region" that the rules carry out.
func (s *Service) JobHandlers() map[string]jobs.Handler {
	return map[string]jobs.Handler{tagJob: s.runTagJob, imageSyncJob: s.runImageSync, treeJob: s.runTreeJob}
}

// enqueueTag orders the evaluation of a tag's definition on every machine. An order for the same definition that has not begun is enough.
func (s *Service) enqueueTag(tx *storage.Tx, t *storage.Tag) error {
	args, err := json.Marshal(tagArgs{t.ID, t.Definition})
	if err != nil {
		return err
	}
	sum := sha256.Sum256(args)
	key := "tag:" + hex.EncodeToString(sum[:12])
	if _, err := tx.EnqueueJob(storage.Job{Kind: tagJob, Queue: "region", UniqueKey: &key, Args: args}); err != nil {
		return err
	}
	_, err = tx.Revision() // wakes whoever waits for jobs
	return err
}

// runTagJob evaluates a definition on all machines, a batch at a time. It stops when the tag has another definition by then.
func (s *Service) runTagJob(ctx context.Context, j storage.Job) (json.RawMessage, error) {
	var args tagArgs
	if err := json.Unmarshal(j.Args, &args); err != nil {
		return nil, jobs.Final(err)
	}
	ctx, cancel := context.WithTimeout(WithActor(ctx, SystemActor()), tagJobLimit)
	defer cancel()
	changed, after, slow := int64(0), int64(0), 0
	for {
		v, last, err := s.evaluateTag(ctx, args.Definition, after)
		if err != nil {
			return nil, err
		}
		if last == 0 {
			return json.Marshal(map[string]int64{"changed": changed})
		}
		after = last
		n, current, err := s.applyTag(ctx, args, v)
		if err != nil {
			return nil, err
		}
		if !current {
			return json.RawMessage(`{"superseded":true}`), nil
		}
		changed += n
		if slow += v.tooMuch; slow >= tagTooMuch {
			err := fmt.Errorf("the definition asks for too much work on %d machines or more", slow)
			return nil, errors.Join(jobs.Final(err), s.complainOfTag(ctx, args))
		}
	}
}

// verdicts are the nodes of a batch that an expression holds for, and those it does not. Nodes without documents are in neither.
type verdicts struct {
	yes, no []int64
	tooMuch int
}

// evaluateTag looks at the next batch of nodes. last is the greatest id of the batch, 0 after the end.
func (s *Service) evaluateTag(ctx context.Context, definition string, after int64) (v verdicts, last int64, err error) {
	workers := max(1, runtime.GOMAXPROCS(0))
	docs := make(chan storage.HardwareDocuments, workers)
	var mu sync.Mutex // guards v
	var wg sync.WaitGroup
	for range workers {
		x, err := tagdef.Compile(definition)
		if err != nil {
			close(docs)
			wg.Wait()
			return v, 0, jobs.Final(err) // the definition was checked by another release
		}
		wg.Go(func() {
			for d := range docs {
				yes, err := x.Match(d.LSHW, d.LLDP)
				mu.Lock()
				switch {
				case yes:
					v.yes = append(v.yes, d.NodeID)
				default:
					v.no = append(v.no, d.NodeID)
				}
				if errors.Is(err, tagdef.ErrTooMuch) {
					v.tooMuch++
				}
				mu.Unlock()
			}
		})
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		ids, err := tx.NodesAfter(after, tagBatch)
		if err != nil || len(ids) == 0 {
			return err
		}
		last = ids[len(ids)-1]
		return tx.EachHardwareDocuments(ids, func(d storage.HardwareDocuments) error {
			select {
			case docs <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	close(docs)
	wg.Wait()
	return v, last, err
}

// applyTag tags what a definition holds for and untags what it does not hold for, if it still is the tag's.
func (s *Service) applyTag(ctx context.Context, args tagArgs, v verdicts) (changed int64, current bool, err error) {
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		changed, current = 0, false
		t, err := tx.TagByID(args.TagID)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if current = t.Definition == args.Definition; !current {
			return nil
		}
		ids, err := tx.SetNodeTags(t.ID, v.yes, v.no)
		if err != nil {
			return err
		}
		changed = int64(len(ids))
		if t.KernelOpts == "" {
			return nil
		}
		return tx.BumpNodes(ids)
	})
	return changed, current, err
}

// complainOfTag tells the administrators of a definition that cannot be evaluated.
func (s *Service) complainOfTag(ctx context.Context, args tagArgs) error {
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		t, err := tx.TagByID(args.TagID)
		if errors.Is(err, storage.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.notify(tx, fmt.Sprintf("tag-definition-%d", t.ID), "warning",
			"The definition of the tag {tag} asks for too much work: it was not evaluated on all machines. Write it with fewer // and *.", map[string]any{"tag": t.Name})
	})
}

// tagVerdict says whether a tag's definition holds for one machine.
type tagVerdict struct {
	tagID      int64
	definition string
	yes        bool
}

// tagVerdicts evaluates all definitions on one machine's documents: outside of any transaction, since it may take its time. What
// cannot be evaluated in time is left as it is.
func (s *Service) tagVerdicts(ctx context.Context, nodeID int64) ([]tagVerdict, error) {
	var tags []storage.Tag
	var docs storage.HardwareDocuments
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if tags, err = tx.DefinedTags(); err != nil || len(tags) == 0 {
			return err
		}
		return tx.EachHardwareDocuments([]int64{nodeID}, func(d storage.HardwareDocuments) error {
			docs = d
			return nil
		})
	})
	if err != nil || docs.NodeID == 0 {
		return nil, err
	}
	var out []tagVerdict
	end := time.Now().Add(tagNodeLimit)
	for _, t := range tags {
		if time.Now().After(end) {
			s.Log.Warn("tags left unevaluated", "node_id", nodeID, "from_tag", t.Name)
			break
		}
		x, err := tagdef.Compile(t.Definition)
		if err != nil {
			continue // checked by another release; a rebuild says what is wrong
		}
		yes, _ := x.Match(docs.LSHW, docs.LLDP) // an error is a no
		out = append(out, tagVerdict{t.ID, t.Definition, yes})
	}
	return out, nil
}

// applyVerdicts puts the tags on a machine whose definitions hold for it, and takes the others off.
func (s *Service) applyVerdicts(tx *storage.Tx, n *storage.Node, list []tagVerdict) error {
	bump := false
	for _, v := range list {
		t, err := tx.TagByID(v.tagID)
		if errors.Is(err, storage.ErrNotFound) || err == nil && t.Definition != v.definition {
			continue // it changed meanwhile, and the job that came with the change looks at this machine too
		}
		if err != nil {
			return err
		}
		yes, no := []int64{n.ID}, []int64(nil)
		if !v.yes {
			yes, no = nil, yes
		}
		changed, err := tx.SetNodeTags(t.ID, yes, no)
		if err != nil {
			return err
		}
		bump = bump || len(changed) > 0 && t.KernelOpts != ""
	}
	if !bump {
		return nil
	}
	if err := s.touchRevision(tx, n); err != nil {
		return err
	}
	return tx.UpdateNode(n)
}

// definitionProblem says what is wrong with a definition, or "".
func definitionProblem(text string) string {
	_, err := tagdef.Compile(text)
	if err == nil {
		return ""
	}
	// The library's own texts begin each in its way.
	return strings.TrimPrefix(clip(err.Error()), "xpath: ")
}
