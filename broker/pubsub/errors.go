package pubsub

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/shoalrun/shoal/broker"
)

// domain is where the reasons of our refusals are defined.
const domain = "shoal"

// invalid is a request with a field that cannot be so.
func invalid(field, format string, v ...any) error {
	return fieldError(codes.InvalidArgument, field, fmt.Sprintf(format, v...))
}

// unimplemented is a field for something of Google's cloud that is not here.
func unimplemented(field, format string, v ...any) error {
	return fieldError(codes.Unimplemented, field, fmt.Sprintf(format, v...))
}

func fieldError(code codes.Code, field, text string) error {
	if field == "" {
		return status.Error(code, text)
	}
	return detailed(code, text, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: field, Description: text},
	}})
}

func detailed(code codes.Code, text string, details ...protoadapt.MessageV1) error {
	s, err := status.New(code, text).WithDetails(details...)
	if err != nil {
		return status.Error(code, text)
	}
	return s.Err()
}

// asStatus gives what the broker says the form of the API
// (https://cloud.google.com/pubsub/docs/reference/error-codes).
func asStatus(err error) error {
	var e *broker.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return refusal(e)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, err.Error())
}

func refusal(e *broker.Error) error {
	switch e.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return fieldError(codes.InvalidArgument, e.Field, e.Text)
	case http.StatusForbidden:
		return detailed(codes.PermissionDenied, e.Text, &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: domain})
	case http.StatusNotFound:
		return status.Error(codes.NotFound, e.Text)
	case http.StatusConflict:
		return status.Error(codes.AlreadyExists, e.Text)
	case http.StatusPreconditionFailed:
		return detailed(codes.FailedPrecondition, e.Text, &errdetails.PreconditionFailure{
			Violations: []*errdetails.PreconditionFailure_Violation{{Type: domain, Subject: e.Field, Description: e.Text}},
		})
	case http.StatusServiceUnavailable:
		return status.Error(codes.Unavailable, e.Text)
	case http.StatusInsufficientStorage:
		return status.Error(codes.ResourceExhausted, e.Text)
	}
	return status.Error(codes.Internal, e.Text)
}
