"""The preset dictionary (RFC 1950, 2.2) of version 1 tokens: what addresses and headers are made of.

Frozen: a token that was sealed with it opens only with it, so not one byte may ever change. What is commonest stands
last, where a reference to it is shortest.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DICTIONARY"]

DICTIONARY: Final = (
    b"/index.html/index.php?id=/default.aspx.html.htm.pdf.jpg.png/assets/images/uploads/wp-content/files/downloads/docs/"
    b"/documentation/support/help/faq/about/contact/careers/jobs/terms-of-service/privacy-policy/terms/privacy/legal/"
    b"/newsletter/subscribe/email-preferences/preferences/notifications/settings/manage/view-in-browser/webversion/view/"
    b"/unsubscribe?/verify/confirm/activate/reset-password/password/login/signin/signup/register/invite/account/profile/"
    b"/invoice/receipt/billing/payment/checkout/cart/order/orders/tracking/delivery/shipping/returns/wishlist/store/shop/"
    b"/categories/category/collections/collection/products/product/catalog/items/item/search?q=/tags/tag/sale/deals/offers/"
    b"/events/event/webinar/courses/course/video/watch?v=/playlist/podcast/episode/stories/story/articles/article/posts/"
    b"/2024/2025/2026/2027/news/blog/en-us/en-gb/en/de/fr/es/ru/app/api/v1/v2/user/users/team/dashboard/project/issues/"
    b"&amp;session=&token=&hash=&signature=&expires=&redirect_uri=&return_to=&next=&lang=en&locale=&page=&size=&color=&sku="
    b"&uid=&cid=&sid=&pid=&eid=&ref=email&source=&src=&from=&type=&code=&key=&id=&t=&u=&e=&s=&k=&c=&p=&v=&r=1"
    b"mc_cid=&mc_eid=&fbclid=&gclid=&yclid=&msclkid=&_hsenc=&_hsmi=&trk=&si=&igshid=&affiliate=&partner=&coupon=&promo="
    b"youtube.com/youtu.be/facebook.com/twitter.com/x.com/instagram.com/linkedin.com/company/pinterest.com/tiktok.com/@"
    b"t.me/vk.com/ok.ru/dzen.ru/github.com/medium.com/google.com/maps/apple.com/play.google.com/store/apps/details?id="
    b"apps.apple.com/us/app/itunes.apple.com/app/id/amazon.com/dp/docs.google.com/forms/d/zoom.us/j/calendly.com/"
    b"campaign=product=category=position=button=banner=header=footer=hero=content=link=name=genre=type="
    b"productcampaigngenretypesectionpositionblockplacementsegmentvariantcohort"
    b"=?UTF-8?Q?=?utf-8?q?=?UTF-8?B?=?utf-8?b?0JfQsNC60LDQtyDQndC+0LLQvtGB0YLQuCDQsiDQv9C+INC90LAg0Lgg0L/RgNC=?="
    b"Your order has shipped Welcome to Thank you for your Confirm your email Reset your password Invoice Reminder: "
    b"Weekly digest Newsletter Update on New This week in The best of Last chance Don't miss Sale Free Re: Fwd: "
    b"Support <support@ Team <team@ News <news@ Newsletter <newsletter@ info@hello@orders@sales@marketing@mailer@"
    b"notifications@no-reply@noreply@mail.example.com@yandex.ru@mail.ru@outlook.com@hotmail.com@yahoo.com@icloud.com@gmail.com>"
    b"<http://localhost:8080/http://127.0.0.1:8000/.co.uk/.com.au/.com.br/.io/.net/.org/.de/.fr/.ru/.eu/.shop/.app/.dev/"
    b"?utm_source=mailchimp&utm_term=&utm_content=cta&utm_id=&utm_campaign=welcome&utm_campaign=spring"
    b"?utm_medium=email&utm_source=newsletter&utm_campaign=?utm_source=email&utm_medium=email&utm_campaign="
    b"&utm_content=&utm_term=&utm_campaign=?utm_source=newsletter&utm_medium=email&utm_campaign="
    b"https://example.com/http://www.https://www..com/https://"
)
