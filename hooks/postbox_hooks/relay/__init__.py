"""``postbox relay``: an SMTP server that tracks what it is sent and hands it to a mail server, for everything that can
set an SMTP host.

    settings    the table ``[relay]``
    path        what stands in MAIL and RCPT commands
    answers     what a server says to a command
    limit       how long an answer may take
    upstream    connections to the mail server, kept and used again
    transaction one mail on its way, command by command
    splitting   one mail to several recipients as one to each
    trace       the Received header
    session     one client's connection
    server      the listening socket, and how it all ends
    command     the command line
"""
