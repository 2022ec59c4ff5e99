package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func accountToken(t storage.APIToken) api.AccountToken {
	return api.AccountToken{ConsumerKey: t.ConsumerKey, TokenKey: t.TokenKey, TokenSecret: t.TokenSecret, Name: t.Name}
}

// AccountCreateToken makes an API key for the caller.
func (s *Server) AccountCreateToken(ctx context.Context, p api.AccountCreateTokenParams) (oapi.Response, error) {
	name := ""
	if p.Name != nil {
		name = *p.Name
	}
	t, err := s.P.CreateToken(ctx, name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, accountToken(t))
}

// AccountDeleteToken revokes an API key of the caller.
func (s *Server) AccountDeleteToken(ctx context.Context, p api.AccountDeleteTokenParams) (oapi.Response, error) {
	if err := s.P.DeleteToken(ctx, p.TokenKey); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// AccountListTokens lists the caller's API keys.
func (s *Server) AccountListTokens(ctx context.Context, _ api.AccountListTokensParams) (oapi.Response, error) {
	tokens, err := s.P.Tokens(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	out := make([]api.AccountTokenListing, 0, len(tokens))
	for _, t := range tokens {
		out = append(out, api.AccountTokenListing{Name: t.Name, Token: provisioner.FormatKey(t)})
	}
	return oapi.JSON(http.StatusOK, out)
}

// AccountUpdateTokenName names an API key of the caller anew.
func (s *Server) AccountUpdateTokenName(ctx context.Context, p api.AccountUpdateTokenNameParams) (oapi.Response, error) {
	if err := s.P.RenameToken(ctx, p.Token, p.Name); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusAccepted, "Accepted")
}
