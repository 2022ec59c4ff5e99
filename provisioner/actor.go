package provisioner

import (
	"context"

	"github.com/ingot-metal/ingot/storage"
)

// Actor is who asks: a user, an administrator, nobody in particular, or the program itself.
type Actor struct {
	User      storage.User
	Admin     bool    // has can_edit_global_entities
	Access    *Access // what its groups let it do; nil: what Admin, or its absence, used to mean
	Anonymous bool
	Endpoint  string // "API", "UI", "CLI": where the request came in; events carry it
	UserAgent string
	Client    string // the address of the peer, for the limit on password guesses
	System    bool   // the program itself: deadlines, jobs, start-up
	Explain   bool   // a refusal is to say why, machine by machine
}

// ID is the user's id, or nil for nobody and for the program.
func (a Actor) ID() *int64 {
	if a.Anonymous || a.System || a.User.ID == 0 {
		return nil
	}
	id := a.User.ID
	return &id
}

type actorKey struct{}

// WithActor makes a context in which a acts.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorFrom tells who acts in ctx: the anonymous actor when nobody was set.
func ActorFrom(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Anonymous: true}
}

// SystemActor is the program itself: it may do everything, and its events name no user.
func SystemActor() Actor { return Actor{Admin: true, System: true} }

// needUser answers MAAS's 401 for those who are not logged in.
func needUser(ctx context.Context) (Actor, error) {
	a := ActorFrom(ctx)
	if a.Anonymous {
		return a, Errorf(Unauthorized, "Forbidden")
	}
	return a, nil
}

// needPermission answers 403, with the name of the entitlement, for those who do not have it.
func needPermission(ctx context.Context, name string) (Actor, error) {
	a, err := needUser(ctx)
	if err == nil && !a.Can(name) {
		err = lacks(name)
	}
	return a, err
}

// needAdmin answers 403 for those who are not administrators: who cannot edit global entities.
func needAdmin(ctx context.Context) (Actor, error) {
	a, err := needUser(ctx)
	if err == nil && !a.Can("can_edit_global_entities") {
		err = Errorf(Forbidden, "Forbidden")
	}
	return a, err
}
