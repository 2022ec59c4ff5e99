package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
)

// The operations of /ingot/v1/, which MAAS has no words for.

// IngotMachineTimelineRead lists the boots of a machine.
func (s *Server) IngotMachineTimelineRead(ctx context.Context, p api.IngotMachineTimelineReadParams) (oapi.Response, error) {
	limit := orDefault(p.Limit, 20)
	if limit < 1 || limit > 100 {
		return oapi.Response{}, badRequest("Invalid limit: must be between 1 and 100")
	}
	boots, err := s.P.Boots(ctx, p.SystemID, int(limit))
	if err != nil {
		return oapi.Response{}, err
	}
	list := make([]api.IngotBoot, 0, len(boots))
	for _, b := range boots {
		steps, err := b.Timeline()
		if err != nil {
			return oapi.Response{}, err
		}
		boot := api.IngotBoot{ID: b.ID, MAC: b.MAC, Rack: b.Rack, Purpose: b.Purpose, Verdict: b.Verdict, Started: api.T1(b.Started), Updated: api.T1(b.Updated)}
		for _, st := range steps {
			boot.Steps = append(boot.Steps, api.IngotBootStep{At: api.T1(st.At), Step: st.Step, Detail: st.Detail})
		}
		list = append(list, boot)
	}
	return oapi.JSON(http.StatusOK, list)
}

// IngotChangesRead waits for a change.
func (s *Server) IngotChangesRead(ctx context.Context, p api.IngotChangesReadParams) (oapi.Response, error) {
	wait := orDefault(p.Wait, 30)
	if wait < 0 || wait > 60 {
		return oapi.Response{}, badRequest("Invalid wait: must be between 0 and 60")
	}
	limited, cancel := context.WithTimeout(ctx, max(time.Duration(wait)*time.Second, time.Millisecond))
	defer cancel()
	revision, err := s.P.DB.WaitRevision(limited, orDefault(p.Since, 0))
	if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.IngotChanges{Revision: revision})
}

func orDefault[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
