window.YTD.account.part0 = [
  {
    "account" : {
      "email" : "ada@example.com",
      "createdVia" : "web",
      "username" : "ada_example",
      "accountId" : "1000000001",
      "createdAt" : "2012-03-04T05:06:07.000Z",
      "accountDisplayName" : "Ada"
    }
  }
]
